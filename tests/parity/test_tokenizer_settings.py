"""Settings and files beside tokenizer.json give the ids of transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import clearstory
from clearstory.errors import BadInput, ClearstoryError
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.transformer.config import TransformerConfig
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer

transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")

TEXTS = (
    "Hello, world! It's 3:45 on the 12th of March 2024.", "  two spaces,\ttabs\n\n\nand lines  \r\n", " one", "a",
    "naïve café, Führer, 東京タワー 🙂 ﬁ Ａ", "def f(x):\n    return x**2 + 1000000\n", "'em I'll WE'RE don't",
    "a  b   c ",
    "▁a ▁ b", "",
    " ", "\n", "x\u200b y\u00a0z", "ÀÉ UPPER lower",
)  # fmt: skip

TRAINING = [line for text in TEXTS for line in text.splitlines() if line.strip()] * 20

LLAMA_SHAPE = TransformerConfig(
    vocab=1, context=64, width=16, layers=1, heads=2, kv_heads=2, head_dim=8, intermediate_size=24, norm="rms",
    positions="rotary", gated=True, bias=False, activation="silu",
)  # fmt: skip

ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def written(folder: Path, files: dict[str, Any], model_type: str, config: dict[str, Any] | None) -> Path:
    """A folder with these files, a config.json and a tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in files.items():
        raw = contents if isinstance(contents, bytes) else json.dumps(contents, ensure_ascii=False).encode()
        (folder / name).write_bytes(contents.encode() if isinstance(contents, str) else raw)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def assert_equal(folder: Path) -> Tokenizer:
    """Ids with and without special tokens are those of transformers, and stay so when the tokenizer is saved."""
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.open(folder)
    for text in TEXTS:
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"], text
    assert list(ours.post_processor_ids) == theirs("")["input_ids"]
    assert ours.vocab == len(theirs)
    ours.save(folder / "again")
    again = Tokenizer.open(folder / "again")
    assert again.contents == ours.contents
    return ours


@pytest.fixture(scope="module")
def sentencepiece_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    spm = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    folder = tmp_path_factory.mktemp("spm")
    settings = {
        "llama": {"model_type": "bpe", "vocab_size": 500, "byte_fallback": True, "remove_extra_whitespaces": False,
                  "normalization_rule_name": "identity", "split_digits": True},
        "t5": {"model_type": "unigram", "vocab_size": 150, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    }  # fmt: skip
    for name, each in settings.items():
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(TRAINING),
            model_prefix=str(folder / name),
            hard_vocab_limit=False,
            minloglevel=2,
            **each,
        )
    return {name: (folder / f"{name}.model").read_bytes() for name in settings}


GPT2_ROLES = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")


@pytest.mark.parametrize("files", ["json", "two"])
@pytest.mark.parametrize(
    "kind",
    ["GPT2Tokenizer", pytest.param("GPT2TokenizerFast", marks=pytest.mark.slow), "PreTrainedTokenizerFast", None],
)
@pytest.mark.parametrize("flag", [True, None])
def test_add_prefix_space(files: str, kind: str | None, flag: bool | None, tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bpe:400", TRAINING)
    merges = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in json.loads(tokenizer.contents)["model"]["merges"]
    ]
    both = {"vocab.json": tokenizer.ids, "merges.txt": "\n".join(["#version: 0.2", *merges, ""])}
    if files == "two" and kind == "PreTrainedTokenizerFast":
        pytest.skip("transformers needs a class for these files")
    config: dict[str, Any] = {**GPT2_ROLES, **({} if kind is None else {"tokenizer_class": kind})}
    config |= {} if flag is None else {"add_prefix_space": flag}
    assert_equal(written(tmp_path, {"tokenizer.json": tokenizer.contents} if files == "json" else both, "gpt2", config))


@pytest.mark.parametrize("flags", [{"add_bos_token": True}, {"add_bos_token": True, "add_eos_token": True}, {}])
def test_bos_and_eos_of_gpt2s_two_files(flags: dict[str, bool], tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bpe:300", TRAINING)
    merges = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in json.loads(tokenizer.contents)["model"]["merges"]
    ]
    files = {"vocab.json": tokenizer.ids, "merges.txt": "\n".join(["#version: 0.2", *merges, ""])}
    assert_equal(written(tmp_path, files, "gpt2", {**GPT2_ROLES, "tokenizer_class": "GPT2Tokenizer", **flags}))


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"legacy": True}, {"legacy": False}, {"add_prefix_space": False}, {"add_eos_token": True},
        {"add_bos_token": False}, {"add_prefix_space": False, "legacy": True},
    ],
)  # fmt: skip
def test_llamas_model_file(settings: dict[str, Any], sentencepiece_files: dict[str, bytes], tmp_path: Path) -> None:
    config = {**ROLES, "add_bos_token": True, "tokenizer_class": "LlamaTokenizer", **settings}
    assert_equal(written(tmp_path, {"tokenizer.model": sentencepiece_files["llama"]}, "llama", config))


def test_added_tokens_follow_the_pieces(sentencepiece_files: dict[str, bytes], tmp_path: Path) -> None:
    files: dict[str, Any] = {"tokenizer.model": sentencepiece_files["llama"]}
    config = {**ROLES, "add_bos_token": True, "tokenizer_class": "LlamaTokenizer"}
    size = Tokenizer.open(written(tmp_path / "plain", files, "llama", config)).vocab
    files |= {"added_tokens.json": {"<pad>": size}, "special_tokens_map.json": {**ROLES, "pad_token": "<pad>"}}
    opened = assert_equal(written(tmp_path / "added", files, "llama", config))
    assert (opened.pad_token_id, opened.vocab) == (size, size + 1)


@pytest.mark.parametrize("kind", ["LlamaTokenizer", "PreTrainedTokenizerFast", None])
@pytest.mark.parametrize("model_type", ["llama", "mistral", pytest.param("phi3", marks=pytest.mark.slow)])
def test_the_older_tokenizer_json_of_llama(
    kind: str | None, model_type: str, sentencepiece_files: dict[str, bytes], tmp_path: Path
) -> None:
    source = written(tmp_path / "source", {"tokenizer.model": sentencepiece_files["llama"]}, "mistral", ROLES)
    older = Tokenizer.open(source).contents  # Prepend and Replace, no pre-tokenizer
    config = {**ROLES, **({} if kind is None else {"tokenizer_class": kind})}
    assert_equal(written(tmp_path / "older", {"tokenizer.json": older}, model_type, config))


@pytest.mark.parametrize(
    "config", [None, {"tokenizer_class": "T5Tokenizer"}, {"tokenizer_class": "T5Tokenizer", "extra_ids": 10}]
)
def test_t5s_model_file_has_sentinels(
    config: dict[str, Any] | None, sentencepiece_files: dict[str, bytes], tmp_path: Path
) -> None:
    opened = assert_equal(written(tmp_path, {"spiece.model": sentencepiece_files["t5"]}, "t5", config))
    count = (config or {}).get("extra_ids", 100)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for number in (0, count - 1):
        token = f"<extra_id_{number}>"
        assert opened.ids[token] == theirs.convert_tokens_to_ids(token)
    assert opened.encode_parsing_special("<extra_id_0>") == [opened.vocab - 1]
    (tmp_path / "tokenizer_config.json").write_text('{"extra_ids": -1}')
    with pytest.raises(BadInput, match=r"has extra_ids = -1; it must be an integer from 0"):
        Tokenizer.open(tmp_path)


@pytest.mark.parametrize("files", ["txt", "json"])
@pytest.mark.parametrize(
    "config",
    [
        None, {"tokenizer_class": "BertTokenizer"}, {"tokenizer_class": "BertTokenizer", "do_lower_case": False},
        {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False, "strip_accents": True,
         "tokenize_chinese_chars": False},
    ],
)  # fmt: skip
def test_berts_settings(files: str, config: dict[str, Any] | None, tmp_path: Path) -> None:
    tokenizer = train_tokenizer("wordpiece:300", TRAINING, uncased=False)
    pieces = "\n".join(sorted(tokenizer.ids, key=lambda token: tokenizer.ids[token])) + "\n"
    stored = {"vocab.txt": pieces} if files == "txt" else {"tokenizer.json": tokenizer.contents}
    assert_equal(written(tmp_path, stored, "bert", config))


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses:UserWarning")
def test_marians_files(tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    french = ["Où est l'été ? Déjà là, répondit-elle.", "Ça va — très bien, merci 東京", "Ñandú œuvre"] * 20
    models = {}
    for name, texts in (("source", TRAINING), ("target", french)):
        sentences = [text for text in texts if name == "target" or text.isascii()]
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences), model_prefix=str(tmp_path / name), vocab_size=150, minloglevel=2,
            hard_vocab_limit=False, character_coverage=1.0,
        )  # fmt: skip
        models[name] = spm.SentencePieceProcessor(model_file=str(tmp_path / f"{name}.model"))
    vocab = {"</s>": 0, "<unk>": 1}
    for model in models.values():  # ids that are those of neither model
        for piece in reversed([model.id_to_piece(id) for id in range(3, model.get_piece_size())]):
            vocab.setdefault(piece, len(vocab))
    for token in (">>fra<<", ">>oci_Latn<<", "<pad>"):
        vocab[token] = len(vocab)
    files = {f"{name}.spm": (tmp_path / f"{name}.model").read_bytes() for name in models} | {"vocab.json": vocab}
    folder = written(tmp_path / "marian", files, "marian", {"source_lang": "eng", "target_lang": "fra"})
    opened = assert_equal(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    sources = (
        ">>fra<< Hello, world!",
        ">>oci_Latn<<  a  b",
        " >>fra<< one",
        "a é b",
        "a 東京 b",
        "été 🙂 ñ",
        "Ça va 東",
    )
    for text in sources:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert opened.encode(text) == ids, text
    # Text never becomes a special token, and a translation is decoded with the pieces of the target.
    assert 0 not in opened.encode("a </s> b")
    for text in french[:3]:
        ids = theirs(text_target=text)["input_ids"]
        assert opened.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
        assert "".join(opened.display_token(id) for id in ids[:-1]).isprintable()
    assert (opened.eos_token_id, opened.unk_token_id, opened.pad_token_id) == (0, 1, vocab["<pad>"])
    (folder / "tokenizer_config.json").write_text('{"separate_vocabs": true}')
    with pytest.raises(BadInput, match="has separate_vocabs"):
        Tokenizer.open(folder)


def test_llamas_tokenizer_converts_to_gguf_with_a_note(sentencepiece_files: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the package gguf is not installed: clearstory[formats]")
    config = {**ROLES, "add_bos_token": True, "tokenizer_class": "LlamaTokenizer"}
    folder = written(tmp_path / "llama", {"tokenizer.model": sentencepiece_files["llama"]}, "llama", config)
    tokenizer = Tokenizer.open(folder)
    (folder / "config.json").unlink()
    shape = replace(LLAMA_SHAPE, vocab=tokenizer.vocab)
    model = save_model(tmp_path / "model", build(shape, seed=0), tokenizer, ModelCard())
    conversion = clearstory.convert(model, tmp_path / "model.gguf")
    assert conversion.note == (
        "llama.cpp encodes one more space than transformers at the start of a text that begins with a space"
    )
    converted = clearstory.open(tmp_path / "model.gguf").tokenizer
    assert converted is not None
    assert converted.post_processor_ids == tokenizer.post_processor_ids == (1,)
    assert [converted.encode(text) for text in TEXTS[3:8]] == [tokenizer.encode(text) for text in TEXTS[3:8]]


@pytest.mark.parametrize("wrong", [[1], {"a": 1}, 5, True, None])
def test_odd_values_are_no_crash(wrong: object, tmp_path: Path) -> None:
    tokenizer = train_tokenizer("wordpiece:100", TRAINING)
    folder = written(tmp_path, {"tokenizer.json": tokenizer.contents}, "bert", {"tokenizer_class": wrong})
    (folder / "config.json").write_text(json.dumps({"model_type": wrong}))
    assert Tokenizer.open(folder).encode("one") == tokenizer.encode("one")
    (folder / "tokenizer.json").write_text(json.dumps({**json.loads(tokenizer.contents), "model": wrong}))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(ClearstoryError):
        Tokenizer.open(folder)
