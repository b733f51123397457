"""Token data sets: documents end to end."""

from __future__ import annotations

from itertools import pairwise

from clearstory.text.document import Document
from clearstory.text.token_dataset import encode_documents
from clearstory.text.train_tokenizer import train_tokenizer


def test_a_subsample_has_documents_from_the_whole_data_set() -> None:
    dataset = encode_documents(
        train_tokenizer("bytes", []),
        [Document(str(number), f"{number:03d}") for number in range(100)],
    )
    sample = dataset.subsample(40)
    kept = [bytes(sample.ids[a : b - 1].tolist()) for a, b in pairwise(sample.starts.tolist())]
    assert 8 <= sample.documents <= 14
    assert int(kept[-1][:3]) > 85
    assert sample.bytes == sample.text_bytes == 3 * sample.documents
    assert dataset.subsample(10**6) is dataset
