"""Files of labeled data that were damaged at random are read, or refused in one sentence; no other error is raised."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from clearstory.errors import ClearstoryError
from clearstory.tasks.data.labeled_texts import read_labeled_texts
from clearstory.tasks.data.labeled_words import read_labeled_words
from clearstory.tasks.data.similarity import read_similarity
from clearstory.tasks.data.splits import split_data

FILES = {
    "a.csv": b'text,label,split\n"One, two",good,train\nThree,bad,dev\nFour five,good,train\n',
    "a.tsv": b"0\tA text here\t1\n1\tAnother text\t0\n2\tA third text\t1\n",
    "a.jsonl": b'{"text": "Ada left", "label": [1, 2], "entities": [[0, 3, "PER"]]}\n{"text": "b c", "label": [1]}\n',
    "a.json": b'{"data": [{"sentence1": "a b", "sentence2": "c d", "score": 0.5}], "version": 1}',
    "a.conll": b"-DOCSTART- O\n\nAda B-PER\nleft O\n\nYork I-LOC\n",
    "a.conllu": b"1\tAda\tAda\tPROPN\tNNP\t_\t0\troot\t_\t_\n\n",
    "a.trees": b"(3 (2 It) (4 (2 's) (4 lovely)))\n(1 (2 It) (0 drags))\n",
    "a.txt": b"__label__good A joy\n__label__bad __label__dull It drags\n",
}
PIECES = (
    *(b"\t", b",", b"\n", b"\r", b"\0", b"\xff", b'"', b"{", b"]", b"(", b")", b" ", b"#", b"\\ud800", b"9" * 5000),
    *(b"null", b"NaN", b"1e999", b"-1", b"true", b"0.5", b"label", b"B-", b"\xef\xbb\xbf"),
)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    rng = random.Random(name)
    path = tmp_path / name
    messages: list[str] = []
    for _ in range(40):
        contents = bytearray(FILES[name])
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(contents) + 1)
            contents[start : start + rng.choice((0, 0, 1, 9))] = rng.choice((b"", *PIECES))
        path.write_bytes(contents)
        for read in (read_labeled_texts, read_labeled_words, read_similarity):
            try:
                data = read(path)  # type: ignore[operator]  # three signatures
                str(data.examples).encode()
                split_data(data, 0.3)
            except ClearstoryError as error:
                messages.append(str(error))
    assert max(map(len, messages)) < 1000
    assert not any("\n" in message for message in messages)
