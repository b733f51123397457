"""Training tokenizers: the vocabulary of each kind, and invalid specifications."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clearstory.errors import BadInput, BadSetting, UnknownName
from clearstory.text import train_tokenizer as train_tokenizer_module
from clearstory.text.documents import read_documents
from clearstory.text.train_tokenizer import train_tokenizer

TEXT = "the cat sat on the mat.\n\nthe dog sat on the log.\n" * 30


def test_characters_are_numbered_in_order_before_the_special_tokens() -> None:
    tokenizer = train_tokenizer("characters", ["hello", "world"])
    assert [tokenizer.display_token(id) for id in range(tokenizer.vocab)] == [
        *sorted(set("helloworld")),
        "<|endoftext|>",
        "<unk>",
    ]
    assert (tokenizer.eos_token_id, tokenizer.unk_token_id) == (7, 8)
    assert tokenizer.encode("hi") == [2, 8]
    assert tokenizer.decode([2, 8]) == "h<unk>"
    assert not tokenizer.is_lossless("hi")


def test_bytes_are_numbered_by_their_value() -> None:
    tokenizer = train_tokenizer("bytes", [])
    assert (tokenizer.vocab, tokenizer.eos_token_id, tokenizer.unk_token_id) == (257, 256, None)
    assert tokenizer.encode("aé\0") == [97, 0xC3, 0xA9, 0]
    assert tokenizer.decode([97, 0xC3]) == "a\ufffd"
    assert tokenizer.decode_bytes([97, 0xC3]) == b"a\xc3"


def test_words_are_separated_by_white_space_and_lines_end_in_eos() -> None:
    tokenizer = train_tokenizer("words", ["b a\n\nb  c-d\n"])
    # <unk> and <eos> first, then b, twice in the text, then a and c-d.
    assert [tokenizer.display_token(id) for id in range(tokenizer.vocab)] == ["<unk>", "<eos>", "b", "a", "c-d"]
    assert tokenizer.encode("a new b\n\n b\n") == [3, 0, 2, 1, 1, 2, 1]
    assert tokenizer.decode([3, 0, 2, 1, 1, 2, 1]) == "a <unk> b\n\nb\n"
    assert tokenizer.byte_lengths.tolist() == [0, 0, 1, 1, 3]
    assert train_tokenizer("words:3", ["b a\n\nb  c-d\n"]).encode("a b") == [0, 2]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_a_short_text_gives_a_smaller_vocabulary(kind: str) -> None:
    assert train_tokenizer(f"{kind}:5000", [TEXT]).vocab < 400
    assert train_tokenizer(kind, [TEXT]).vocab < 400


def test_bpe_reaches_the_requested_vocabulary() -> None:
    tokenizer = train_tokenizer("bpe:270", [TEXT])
    assert tokenizer.vocab == 270
    assert tokenizer.display_token(tokenizer.encode("the cat")[0]) == "the"
    assert tokenizer.display_token(tokenizer.eos_token_id or 0) == "<|endoftext|>"


@pytest.mark.parametrize("kind", ["bpe", "characters", "bytes", "words", "wordpiece"])
def test_an_empty_text_gives_a_tokenizer_too(kind: str) -> None:
    tokenizer = train_tokenizer(kind, [])
    assert tokenizer.decode(tokenizer.encode("a\n")) is not None


def test_unigram_refuses_too_little_text() -> None:
    with pytest.raises(BadInput, match="too little text to train unigram:8192"):
        train_tokenizer("unigram", [])


def test_wordpiece_keeps_capitals_unless_uncased() -> None:
    assert (
        train_tokenizer("wordpiece:60", ["The THE the"]).decode(
            train_tokenizer("wordpiece:60", ["The THE the"]).encode("The")
        )
        == "The"
    )
    uncased = train_tokenizer("wordpiece:60", ["The THE thé"], uncased=True)
    assert uncased.encode("The") == uncased.encode("thé") == uncased.encode("the")
    assert [uncased.display_token(id) for id in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert (uncased.pad_token_id, uncased.unk_token_id, uncased.bos_token_id, uncased.eos_token_id) == (0, 1, 2, 3)


def test_pieces_inside_words_begin_with_hashes() -> None:
    tokenizer = train_tokenizer("wordpiece:30", ["abc abd abe"])
    assert tokenizer.encode("abz") == [tokenizer.unk_token_id]
    assert "".join(tokenizer.display_token(id).removeprefix("##") for id in tokenizer.encode("abdc")) == "abdc"
    assert tokenizer.byte_lengths[tokenizer.encode("abd abd")].sum() == 6  # the space is counted nowhere


def test_texts_can_come_from_a_generator() -> None:
    assert train_tokenizer("wordpiece:60", (text for text in [TEXT])) == train_tokenizer("wordpiece:60", [TEXT])


def test_a_folder_is_opened(tmp_path: Path) -> None:
    train_tokenizer("characters", ["abc"]).save(tmp_path)
    assert train_tokenizer(str(tmp_path), ["never read"]) == train_tokenizer("characters", ["abc"])


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("bpp:100", UnknownName, "did you mean 'bpe'"),
        ("nowhere/at/all", UnknownName, "no folder of that name"),
        ("bpe:many", BadSetting, "does not end in a vocabulary size; write bpe:8192"),
        ("bpe:", BadSetting, "does not end in a vocabulary size"),
        ("bpe:-5", BadSetting, "does not end in a vocabulary size"),
        ("bpe:100", BadSetting, "bpe supports 257 to 1,000,000"),
        ("bytes:256", BadSetting, "write bytes"),
        ("characters:65", BadSetting, "write characters"),
    ],
)
def test_invalid_specifications_are_refused(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train_tokenizer(spec, [TEXT])


def test_only_wordpiece_can_be_uncased() -> None:
    with pytest.raises(BadSetting, match="only wordpiece can be uncased"):
        train_tokenizer("bpe", [TEXT], uncased=True)


def test_another_end_of_text_can_be_chosen() -> None:
    tokenizer = train_tokenizer("bpe:300", [TEXT], eos="</s>")
    assert tokenizer.display_token(tokenizer.eos_token_id or 0) == "</s>"
    assert tokenizer.eos_token_id not in tokenizer.encode("</s>")


def test_every_process_trains_the_same_tokenizer() -> None:
    """Each process has its own hash order, which must not affect the ids."""
    kinds = ["bpe", "wordpiece", "words"]
    expression = f"[train_tokenizer(kind, [{TEXT!r}]).fingerprint for kind in {kinds}]"
    program = f"from clearstory.text.train_tokenizer import train_tokenizer; print({expression})"
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout


def test_wikitext_2_has_its_published_counts(data: Path) -> None:
    folder = data / "wikitext2"
    train, valid = (
        [part.text for part in read_documents([folder / f"{split}.txt.gz"])] for split in ("train", "valid")
    )
    tokenizer = train_tokenizer("words", train)
    assert tokenizer.vocab == 33_278
    assert sum(map(len, tokenizer.encode_batch(train))) == 2_088_628
    assert sum(map(len, tokenizer.encode_batch(valid))) == 217_646


@pytest.mark.parametrize("spec", ["bpe:400", "wordpiece:300"])
def test_long_texts_are_trained_on_in_parts_with_the_same_result(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "The cat's mat,\n\n  isn't 12 naïve.\n" * 40 + "中文。\n and  more\r\n text 'tis " * 40
    monkeypatch.setattr(train_tokenizer_module, "TRAINING_CHARACTERS", 10**9)
    whole = train_tokenizer(spec, [text])
    monkeypatch.setattr(train_tokenizer_module, "TRAINING_CHARACTERS", 20)
    assert len(list(train_tokenizer_module.short_texts([text]))) > 50
    assert train_tokenizer(spec, [text]) == whole
