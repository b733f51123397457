"""T5 and Marian folders have the same outputs here and in transformers. All parameters are randomized first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clearstory.formats.folders import open_model, save_model
from clearstory.formats.hf.config_json import choose_format
from clearstory.formats.model_card import ModelCard
from clearstory.generation.beam_search import beam_search_batch
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.transformer.presets import MARIAN, T5_11_SMALL, T5_SMALL, TRANSFORMER_BASE
from clearstory.recipes.conversion.convert import convert
from clearstory.text.train_tokenizer import train_tokenizer

transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")

SMALL: dict[str, Any] = {
    "vocab": 61, "context": 64, "width": 24, "layers": 2, "heads": 4, "kv_heads": 4,
    "head_dim": 6, "intermediate_size": 40,
    "decoder_start_token_id": 60,
}  # fmt: skip

# Each class, and each switch that its row of the table carries.
CASES: dict[str, TransformerConfig] = {
    "t5": replace(T5_SMALL, **SMALL),
    "t5-wide-heads": replace(T5_SMALL, **{**SMALL, "head_dim": 10, "decoder_start_token_id": 0}, decoder_layers=3),
    "t5-v1.1": replace(T5_11_SMALL, **SMALL),
    "t5-v1.1-tied-silu": replace(T5_11_SMALL, **SMALL, tie_embeddings=True, activation="silu"),
    "t5-gelu-untied": replace(
        T5_SMALL, **SMALL, activation="gelu", tie_embeddings=False, logit_scale=False, norm_eps=1e-3
    ),
    "2017": replace(TRANSFORMER_BASE, **SMALL),
    "marian": replace(MARIAN, **SMALL, decoder_layers=1),
    "marian-gelu": replace(MARIAN, **SMALL, activation="gelu", embed_scale=False),
}


def name_of(case: str) -> str:
    return "T5ForConditionalGeneration" if case.startswith("t5") else "MarianMTModel"


def shake(model: nn.Module, by: float = 0.1) -> None:
    """Add noise to all that is learnt: initial biases are 0, which would hide that they are lost."""
    generator = torch.Generator().manual_seed(1)
    learnt = [*model.parameters(), *(each for name, each in model.named_buffers() if name == "final_logits_bias")]
    frozen = [weight for name, weight in model.named_parameters() if "embed_positions" in name]
    with torch.no_grad():
        for weight in learnt:
            if not any(weight is each for each in frozen):
                weight.add_(torch.randn(weight.shape, generator=generator).to(weight.dtype) * by)


def ours(config: TransformerConfig, dtype: torch.dtype = torch.float32) -> EncoderDecoder:
    model: EncoderDecoder = build(config, seed=0).to(dtype).eval()
    shake(model)
    return model


def theirs(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    model, said = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    assert not any(said.values()), f"transformers is not content with our names: {said}"
    return model.eval()


SOURCES = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [21, 22, 23], [31, 32, 33, 34, 35, 36, 37]]


def written(count: int = 20) -> Tensor:
    return torch.randint(1, 60, (3, count), generator=torch.Generator().manual_seed(2))


def padded() -> tuple[Tensor, Tensor]:
    """The sources as ids and their mask."""
    rows = TokenBatch.from_sequences(SOURCES)
    assert rows.lengths is not None
    return rows.ids, (torch.arange(rows.ids.shape[1]) < rows.lengths[:, None]).long()


@torch.no_grad()
def layers_of_ours(model: EncoderDecoder, ids: Tensor) -> list[Tensor]:
    """What each block of either stack hands on, its last norm, and the logits; padding left out."""
    heard: list[Tensor] = []
    places = []
    for stack in (model.encoder, model.decoder):
        blocks = list(stack.blocks)
        places += blocks if stack.norm is None else [*blocks[:-1], stack.norm]
    hooks = [place.register_forward_hook(lambda module, inside, out: heard.append(out)) for place in places]
    model.encoder.packs_sequences = False  # blocks get the padded batch
    model.forward(TokenBatch(ids), source=TokenBatch.from_sequences(SOURCES))
    for hook in hooks:
        hook.remove()
    model.encoder.packs_sequences = True
    hidden, _ = model.forward(TokenBatch(ids), source=TokenBatch.from_sequences(SOURCES))
    return [*unpadded(heard, len(model.encoder.blocks)), model.logits(hidden)]


@torch.no_grad()
def layers_of_theirs(model: Any, ids: Tensor) -> list[Tensor]:
    """The same places over there: their lists begin with the embeddings."""
    source, mask = padded()
    out = model(input_ids=source, attention_mask=mask, decoder_input_ids=ids, output_hidden_states=True)
    heard = [*out.encoder_hidden_states[1:], *out.decoder_hidden_states[1:]]
    return [*unpadded(heard, len(out.encoder_hidden_states) - 1), out.logits]


def unpadded(heard: list[Tensor], layers: int) -> list[Tensor]:
    """Vectors of padding mean nothing."""
    _, mask = padded()
    return [each[mask.bool()] if number < layers else each for number, each in enumerate(heard)]


def worst(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference, as a share of its layer's largest value."""
    assert len(a) == len(b)
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(a, b, strict=True))


@contextmanager
def in_float64(model: Any, mine: EncoderDecoder) -> Iterator[None]:
    """T5's norms are computed in float32 whatever the weights are: float32 parity has vouched for them. Sines and
    cosines are fp32 here and there, rounded on different roads.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "T5LayerNorm":
                norm = nn.RMSNorm(child.weight.shape[0], eps=child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(module, name, norm)
    if mine.encoder.sinusoidal_positions is not None:
        mine.encoder.sinusoidal_positions = mine.decoder.sinusoidal_positions = (
            model.model.encoder.embed_positions.weight.detach()
        )
    yield


@pytest.mark.parametrize("name", CASES)
def test_our_folder_opens_in_transformers_with_the_same_numbers(name: str, tmp_path: Path) -> None:
    config = CASES[name]
    assert choose_format(config)[0].name == name_of(name)
    model = ours(config)
    folder = save_model(tmp_path / "model", model, None, ModelCard(name=name))
    oracle = theirs(folder)
    assert type(oracle).__name__ == name_of(name)
    assert (
        oracle.generation_config.decoder_start_token_id
        == config.decoder_start_token_id
        == oracle.config.decoder_start_token_id
    )
    ids = written()
    difference = worst(layers_of_ours(model, ids), layers_of_theirs(oracle, ids))
    print(f"measured {name}: fp32 {difference:.1e}")  # shown with -rP
    assert difference <= 1e-5

    again = open_model(folder)
    assert again.model.config == config
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[key]), key

    # What they save of ours opens here, and is what it was.
    oracle.save_pretrained(tmp_path / "back")
    back = open_model(tmp_path / "back")
    assert replace(back.model.config, context=config.context) == config
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.model.state_dict()[key]), key

    wide = ours(config, torch.float64)
    oracle = theirs(save_model(tmp_path / "wide", wide, None, ModelCard()), torch.float64)
    with in_float64(oracle, wide):
        difference = worst(layers_of_ours(wide, ids), layers_of_theirs(oracle, ids))
    print(f"measured {name}: fp64 {difference:.1e}")  # shown with -rP
    assert difference <= 1e-9


THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", {}),
    "t5-v1.1": ("T5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "t5-v1.1-untied": ("T5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "t5-depths": ("T5", {"num_decoder_layers": 1, "d_kv": 9}),
    "marian": ("Marian", {"activation_function": "swish", "scale_embedding": True}),
    "marian-depths": ("Marian", {"decoder_layers": 1}),
}


@pytest.mark.parametrize("name", THEIRS)
def test_their_folder_opens_here_with_the_same_numbers(name: str, tmp_path: Path) -> None:
    family, settings = THEIRS[name]
    shape: dict[str, Any] = {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 4}
    if family == "Marian":
        shape = {"d_model": 24, "max_position_embeddings": 64, "encoder_layers": 2, "decoder_layers": 2}
        for stack in ("encoder", "decoder"):
            shape |= {f"{stack}_attention_heads": 4, f"{stack}_ffn_dim": 40}
    common = {"vocab_size": 61, "pad_token_id": 60, "decoder_start_token_id": 60}
    config = getattr(transformers, f"{family}Config")(**{**shape, **common, **settings})
    oracle = getattr(transformers, {"T5": "T5ForConditionalGeneration", "Marian": "MarianMTModel"}[family])(config)
    if name == "t5-v1.1-untied":  # as published; transformers 5 ties it when it is created
        oracle.lm_head.weight = nn.Parameter(oracle.lm_head.weight.detach().clone())
    shake(oracle.eval())
    oracle.save_pretrained(tmp_path / "theirs")
    opened = open_model(tmp_path / "theirs")
    assert opened.model.config.decoder_start_token_id == 60
    ids = written()
    difference = worst(layers_of_ours(opened.model, ids), layers_of_theirs(oracle, ids))
    print(f"measured {name}: fp32 {difference:.1e}")  # shown with -rP
    assert difference <= 1e-5

    # And back: what they would open again is what they saved.
    back = theirs(save_model(tmp_path / "ours", opened.model, None, opened.card))
    for key, tensor in oracle.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[key]), key
    assert worst(layers_of_theirs(back, ids), layers_of_theirs(oracle, ids)) <= 1e-5


@pytest.mark.parametrize("name", ["t5-v1.1", "marian"])
def test_a_folder_is_portable_by_its_own_check(name: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bytes", [])
    model = ours(replace(CASES[name], vocab=tokenizer.vocab, decoder_start_token_id=tokenizer.pad_token_id))
    folder = save_model(tmp_path / "model", model, tokenizer, ModelCard())
    found = convert(folder, tmp_path / "again", check=True)
    assert found.portability is not None
    assert found.portability.portable, found.portability.reason
    assert found.max_nats_difference == 0


def test_two_different_embeddings_are_rejected(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from clearstory.errors import BadInput

    folder = save_model(tmp_path / "model", ours(CASES["marian"]), None, ModelCard())
    (folder / "checksums.json").unlink()
    weights = load_file(folder / "model.safetensors")
    weights["model.decoder.embed_tokens.weight"] = weights["model.shared.weight"].clone()
    save_file(weights, folder / "model.safetensors")
    assert open_model(folder).model.config == CASES["marian"]
    weights["model.decoder.embed_tokens.weight"][3] += 1
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(BadInput, match="with one matrix for both"):
        open_model(folder)


def test_biases_trained_with_transformers_are_kept(tmp_path: Path) -> None:
    oracle = theirs(save_model(tmp_path / "model", ours(CASES["2017"]), None, ModelCard()))
    shake(oracle)
    oracle.save_pretrained(tmp_path / "tuned")
    opened = open_model(tmp_path / "tuned")
    assert opened.model.config == replace(CASES["2017"], unembed_bias=True)
    ids = written()
    assert worst(layers_of_ours(opened.model, ids), layers_of_theirs(oracle, ids)) <= 1e-5


def generated(oracle: Any, **settings: Any) -> list[list[int]]:
    """What transformers writes for each source, after the start token and up to the end token."""
    source, mask = padded()
    out = oracle.generate(source, attention_mask=mask, do_sample=False, max_new_tokens=50, **settings)
    rows = [row[1:] for row in out.tolist()]
    eos = settings.get("eos_token_id")
    return [row[: row.index(eos) + 1] if eos in row else row for row in rows]


def lively(name: str) -> EncoderDecoder:
    """A model that does not say one word for ever."""
    model = ours(CASES[name])
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim == 2 and key != "embedding.weight":
                weight.copy_(torch.randn(weight.shape, generator=generator) * (0.4 if name.startswith("t5") else 1.0))
            elif weight.ndim == 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1 + (not key.endswith("bias")))
    return model


WRITING = ["t5", "t5-v1.1", "2017", "marian"]


@pytest.mark.parametrize("name", WRITING)
def test_fifty_greedy_tokens_are_equal(name: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", lively(name), None, ModelCard())
    opened = open_model(folder)
    engine = Engine(opened.model)
    for source in SOURCES:
        engine.add([], Sampling(max_tokens=50, temperature=0), start_token_id=60, source=source)
    mine: list[list[int]] = [[] for _ in SOURCES]
    while engine.has_unfinished:
        for reply in engine.next_tokens():
            mine[reply.request].append(reply.token.id)
    assert mine == generated(theirs(folder), eos_token_id=None, pad_token_id=60)
    assert len({id for row in mine for id in row}) > 4, "a model that repeats one token proves little"


@pytest.mark.parametrize("name", ["t5", "marian"])
def test_beam_search_results_are_equal(name: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", lively(name), None, ModelCard())
    opened, oracle = open_model(folder), theirs(folder)
    settings = Sampling(max_tokens=50, beam=4)
    free = beam_search_batch(
        opened.model, [[]] * 3, settings, start_token_id=60, sources=SOURCES, suppress_tokens=(60, 12)
    )
    said = [id for each in free for found in each for id in found.ids]
    ends = sorted(set(said), key=lambda id: abs(said.count(id) / len(said) - 0.05))[:2]  # now and then
    lengths = set()
    for penalty, eos in product((0.0, 0.6, 2.0), ends):
        settings = replace(settings, length_penalty=penalty)
        found = beam_search_batch(
            opened.model,
            [[]] * 3,
            settings,
            eos_token_id=eos,
            start_token_id=60,
            sources=SOURCES,
            suppress_tokens=(60, 12),
        )
        mine = [list(each[0].ids) for each in found]
        asked = {"num_beams": 4, "length_penalty": penalty, "bad_words_ids": [[60], [12]]}
        assert mine == generated(oracle, eos_token_id=eos, pad_token_id=60, **asked), (penalty, eos)
        lengths |= set(map(len, mine))
    assert len(lengths) > 2, "searches that all end alike prove little"
