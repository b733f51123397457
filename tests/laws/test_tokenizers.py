"""Laws that every kind of tokenizer obeys, over all of Unicode."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clearstory.text.token_dataset import encode_text
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import KINDS, train_tokenizer

calm = settings(deadline=None)  # busy machines are slow, not wrong

SCRIPTS = [
    "In the beginning God created the heaven and the earth.\nAnd the earth was without form, and void;\n\n",
    "春はあけぼの。やうやう白くなりゆく山際、少し明かりて、\n",
    "في البدء خلق الله السماوات والأرض.\n",
    "🙂👩‍👩‍👧‍👦 naïve – Straße\t1234 don't\r\n",
]
EVERY = sorted(KINDS)
UNIVERSAL = ["bytes", "bpe", "unigram"]  # these encode any text without loss

# Unpaired surrogates are not text; everything else is.
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
special_looking = st.lists(
    st.sampled_from(
        ["<|endoftext|>", "<unk>", "<eos>", "[CLS]", "[MASK]", "<0x41>", "▁", "Ġ", "##a", " ", "\n", "é", "a"]
    ),
    max_size=12,
).map("".join)


@cache
def tokenizer(kind: str) -> Tokenizer:
    sized = f"{kind}:600" if kind in ("bpe", "wordpiece", "unigram") else kind
    return train_tokenizer(sized, SCRIPTS * 4)


@pytest.mark.parametrize("kind", UNIVERSAL)
@calm
@given(text=anything | special_looking)
@example(text="".join(SCRIPTS))
def test_decode_of_encode_is_the_text(kind: str, text: str) -> None:
    ids = tokenizer(kind).encode(text)
    assert tokenizer(kind).decode(ids) == text
    assert tokenizer(kind).decode_bytes(ids) == text.encode()
    assert tokenizer(kind).is_lossless(text)


@calm
@given(text=st.text(st.sampled_from(sorted(set("".join(SCRIPTS)))), max_size=60))
def test_characters_decode_to_a_text_of_known_characters(text: str) -> None:
    assert tokenizer("characters").decode(tokenizer("characters").encode(text)) == text
    assert tokenizer("characters").is_lossless(text)


@pytest.mark.parametrize("kind", UNIVERSAL)
@calm
@given(text=anything | special_looking)
def test_byte_lengths_add_up_to_the_text(kind: str, text: str) -> None:
    ids = tokenizer(kind).encode(text)
    assert tokenizer(kind).byte_lengths[ids].sum() == len(text.encode())


@calm
@given(text=st.text(st.sampled_from(sorted(set("".join(SCRIPTS)))), max_size=60))
def test_byte_lengths_of_characters_add_up_to_the_text(text: str) -> None:
    assert tokenizer("characters").byte_lengths[tokenizer("characters").encode(text)].sum() == len(text.encode())


@pytest.mark.parametrize("kind", ["words", "wordpiece"])
@calm
@given(text=anything | special_looking)
def test_a_lossy_tokenizer_counts_no_byte_twice(kind: str, text: str) -> None:
    ids = tokenizer(kind).encode(text)
    assert tokenizer(kind).byte_lengths[ids].sum() <= len(text.encode())


@pytest.mark.parametrize("kind", ["bytes", "bpe", "unigram", "characters", "wordpiece"])
@calm
@given(text=anything | special_looking)
def test_no_text_encodes_to_a_special_token(kind: str, text: str) -> None:
    one = tokenizer(kind)
    assert not {one.eos_token_id, one.bos_token_id, one.pad_token_id} & set(one.encode(text))


def test_only_a_line_feed_gives_eos_in_words() -> None:
    words = tokenizer("words")
    assert words.encode("earth. <eos> <eos>\n").count(words.eos_token_id) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", EVERY)
@calm
@given(texts=st.lists(anything, max_size=5))
def test_a_batch_equals_its_texts_one_by_one(kind: str, texts: list[str]) -> None:
    assert tokenizer(kind).encode_batch(texts) == [tokenizer(kind).encode(text) for text in texts]


@pytest.mark.parametrize("kind", EVERY)
@calm
@given(text=anything)
def test_every_id_is_below_the_vocabulary_and_has_a_readable_piece(kind: str, text: str) -> None:
    one = tokenizer(kind)
    assert one.byte_lengths.shape == (one.vocab,)
    for id in one.encode(text):
        assert 0 <= id < one.vocab
        assert one.display_token(id)
        assert not set(one.display_token(id)) & set("\n\t\x00")


@pytest.mark.parametrize("kind", EVERY)
def test_a_saved_tokenizer_opens_the_same(kind: str, tmp_path: Path) -> None:
    one = tokenizer(kind)
    one.save(tmp_path)
    again = Tokenizer.open(tmp_path)
    assert again == one
    assert again.fingerprint == one.fingerprint
    assert (again.kind, again.vocab) == (kind, one.vocab)
    assert (again.eos_token_id, again.bos_token_id, again.unk_token_id, again.pad_token_id) == (
        one.eos_token_id,
        one.bos_token_id,
        one.unk_token_id,
        one.pad_token_id,
    )
    assert np.array_equal(again.byte_lengths, one.byte_lengths)
    assert again.encode("".join(SCRIPTS)) == one.encode("".join(SCRIPTS))


@pytest.mark.parametrize("kind", sorted(set(EVERY) - {"unigram"}))  # its trainer adds in the order of a hash table
def test_the_same_text_gives_the_same_tokenizer(kind: str) -> None:
    tokenizer.cache_clear()
    first = tokenizer(kind)
    tokenizer.cache_clear()
    assert tokenizer(kind) == first


@pytest.mark.parametrize("kind", UNIVERSAL)
@calm
@given(texts=st.lists(anything, min_size=1, max_size=4))
def test_a_dataset_counts_the_bytes_of_its_text(kind: str, texts: list[str]) -> None:
    dataset = encode_text(tokenizer(kind), texts)
    assert dataset.bytes == dataset.text_bytes == sum(len(text.encode()) for text in texts)
    assert dataset.documents == len(texts)
    pieces = [dataset.ids[start:end].tolist() for start, end in zip(dataset.starts, dataset.starts[1:], strict=False)]
    ending = [tokenizer(kind).eos_token_id]
    assert pieces == [tokenizer(kind).encode(text) + ending for text in texts]
