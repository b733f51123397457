"""A list of names: each line is a document, and counting all of them gives the known figure."""

from __future__ import annotations

import gzip
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

import clearstory
from clearstory.text.settings import ReadSettings


@pytest.mark.slow
def test_bigrams_of_all_names_have_the_known_nats_per_character(data: Path, tmp_path: Path) -> None:
    file = data / "names" / "names.txt.gz"
    if not file.is_file():
        pytest.skip(f"{file} is not there; CLEARSTORY_DATA names the folder of data")
    names = gzip.decompress(file.read_bytes()).decode().split("\n")
    pairs = Counter(pair for name in names for pair in pairwise(f".{name}."))
    firsts: Counter[str] = Counter()
    for (first, _), count in pairs.items():
        firsts[first] += count
    nats = -sum(count * math.log(count / firsts[first]) for (first, _), count in pairs.items()) / pairs.total()
    assert round(nats, 4) == 2.4540  # with one boundary symbol: the known figure of this exercise

    clearstory.train(
        file, model={"name": "ngram", "order": 2, "smoothing": "none"}, tokenizer="characters", out=tmp_path / "run",
        data={"lines": True, "validation": 0.0, "cache": tmp_path / "cache"},
    )  # fmt: skip
    score = clearstory.evaluate(tmp_path / "run", file, data=ReadSettings(lines=True)).score
    assert (score.tokens, len(names)) == (pairs.total(), 32_033)
    assert score.nats_per_token == pytest.approx(nats, rel=1e-6)
