"""Saved tokenizers: exchange with transformers, and damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clearstory.errors import BadInput, CorruptFile, VocabularyMismatch
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import KINDS, train_tokenizer

TEXT = "In the beginning was the Word, 初めに言があった。 🙂\r\n\n  and\tthe Word was\n" * 5


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_what_we_save(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: clearstory[test]")
    tokenizer = train_tokenizer(kind, [TEXT])
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXT, add_special_tokens=False)["input_ids"] == tokenizer.encode(TEXT)
    assert theirs.decode(tokenizer.encode(TEXT)) == tokenizer.decode(tokenizer.encode(TEXT))
    assert len(theirs) == tokenizer.vocab
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.pad_token_id) == (
        tokenizer.eos_token_id,
        tokenizer.bos_token_id,
        tokenizer.pad_token_id,
    )
    if tokenizer.unk_token_id is not None:
        assert theirs.unk_token_id == tokenizer.unk_token_id


def test_transformers_adds_the_special_tokens_around_a_text(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: clearstory[test]")
    tokenizer = train_tokenizer("wordpiece", [TEXT])
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("the Word")["input_ids"] == [
        tokenizer.bos_token_id,
        *tokenizer.encode("the Word"),
        tokenizer.eos_token_id,
    ]


def sentencepiece_like(folder: Path) -> Tokenizer:
    """A tokenizer as Llama's: ▁ for spaces, byte fallback, a token added outside the model."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab"]
    vocabulary = {token: id for id, token in enumerate(pieces)} | {"▁b": 300}  # and a gap before the last
    added = [("<unk>", True), ("<s>", True), ("</s>", True), ("<tool>", False)]
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    spaces = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    parts = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [
            {"id": vocabulary.get(token, 302), "content": token, "special": special, **flags}
            for token, special in added
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": ["▁ a", "a b", "▁ b"],
        },
    }
    config = {"eos_token": {"content": "</s>"}, "bos_token": "<s>", "chat_template": "…"}
    (folder / "tokenizer.json").write_text(json.dumps(parts))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer.open(folder)


def test_a_sentencepiece_tokenizer_opens_with_its_bytes(tmp_path: Path) -> None:
    tokenizer = sentencepiece_like(tmp_path)
    text = "ab a é</s> 🙂"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.byte_lengths[ids].sum() == len(text.encode())
    assert [tokenizer.display_token(id) for id in tokenizer.encode("ab aé")] == ["ab", "␣a", "<0xC3>", "<0xA9>"]
    assert (tokenizer.kind, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id) == (
        "bpe",
        2,
        1,
        None,
    )


def test_a_tokenizer_never_truncates_text(tmp_path: Path) -> None:
    assert len(sentencepiece_like(tmp_path).encode("ba" * 50)) > 4


def test_only_encode_parsing_special_gives_special_tokens(tmp_path: Path) -> None:
    tokenizer = sentencepiece_like(tmp_path)
    assert 2 not in tokenizer.encode("</s>")
    assert tokenizer.encode_parsing_special("a</s>")[-1] == 2
    assert tokenizer.decode(tokenizer.encode_parsing_special("a</s>")) == "a"


def test_unused_ids_have_no_bytes(tmp_path: Path) -> None:
    tokenizer = sentencepiece_like(tmp_path)
    assert tokenizer.vocab == 301
    assert tokenizer.display_token(300) == "␣b"
    assert (tokenizer.byte_lengths[299], tokenizer.display_token(299)) == (0, "<299>")


def test_tokens_beside_the_model_are_text_unless_special(tmp_path: Path) -> None:
    tokenizer = sentencepiece_like(tmp_path)
    [id] = tokenizer.encode("<tool>")
    assert tokenizer.byte_lengths[id] == len("<tool>")
    assert tokenizer.decode([1, id, 2]) == "<tool>"


def test_saving_an_opened_tokenizer_changes_nothing(tmp_path: Path) -> None:
    tokenizer = sentencepiece_like(tmp_path)
    tokenizer.save(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
    assert json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())["chat_template"] == "…"


def test_without_a_config_the_usual_special_tokens_are_used(tmp_path: Path) -> None:
    train_tokenizer("bpe:300", [TEXT]).save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = Tokenizer.open(tmp_path / "tokenizer.json")
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id) == (
        0,
        0,
        None,
        None,
    )


@pytest.mark.parametrize("keep", [0, 1, 500, -1])
def test_a_truncated_tokenizer_is_corrupt(tmp_path: Path, keep: int) -> None:
    train_tokenizer("bpe:300", [TEXT]).save(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CorruptFile, match=r"tokenizer.json does not contain a usable tokenizer.json|not valid JSON"):
        Tokenizer.open(tmp_path)


@pytest.mark.parametrize(
    "contents", ["{}", "[]", '{"model": {"type": "BPE"}}', '{"version": "1.0", "model": {"type": "Oracle"}}']
)
def test_json_that_is_not_a_tokenizer_is_corrupt(tmp_path: Path, contents: str) -> None:
    (tmp_path / "tokenizer.json").write_text(contents)
    with pytest.raises(CorruptFile, match=r"tokenizer.json"):
        Tokenizer.open(tmp_path)


def test_a_damaged_config_is_corrupt(tmp_path: Path) -> None:
    train_tokenizer("bytes", []).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": ')
    with pytest.raises(CorruptFile, match=r"tokenizer_config.json is not valid JSON"):
        Tokenizer.open(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no tokenizer.json, nor vocab.json with merges.txt"):
        Tokenizer.open(tmp_path)


@pytest.mark.parametrize("id", [257, -1])
def test_ids_outside_the_vocabulary_are_refused(id: int) -> None:
    tokenizer = train_tokenizer("bytes", [])
    for use in (tokenizer.decode, tokenizer.decode_bytes):
        with pytest.raises(VocabularyMismatch, match=rf"token id {id} is outside the tokenizer's vocabulary of 257"):
            use([97, id])
    if id < 0:
        with pytest.raises(VocabularyMismatch, match="token id -1 is outside"):
            tokenizer.display_token(id)


def test_an_unused_output_of_a_model_can_be_displayed() -> None:
    # A model with more outputs than tokens may predict such an id: it is displayed, and is never text.
    assert train_tokenizer("bytes", []).display_token(257) == "<257>"
