"""Rows of tokens: documents end to end."""

from __future__ import annotations

from itertools import pairwise

from clearstory.text.document import Document
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.text.token_dataset import encode_documents


def test_spread_takes_documents_from_all_over() -> None:
    rows = encode_documents(
        train_tokenizer("bytes", []),
        [Document(str(number), f"{number:03d}") for number in range(100)],
        multiple_documents=True,
    )
    some = rows.subsample(40)
    kept = [bytes(some.ids[a : b - 1].tolist()) for a, b in pairwise(some.starts.tolist())]
    assert 8 <= some.documents <= 14
    assert int(kept[-1][:3]) > 85
    assert some.bytes == some.text_bytes == 3 * some.documents
    assert rows.subsample(10**6) is rows
