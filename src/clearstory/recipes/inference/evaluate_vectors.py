"""Evaluation of vectors: similarity of words and sentences, word analogies, and association tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadInput
from clearstory.evaluation.classification import bootstrap_metrics, spearman
from clearstory.evaluation.weat import association_test
from clearstory.evaluation.word_analogies import METHODS, solve_analogies, unit_rows
from clearstory.recipes.inference.loading import ModelWithTokenizer
from clearstory.recipes.inference.text_vectors import TextVectors, VectorKind, VectorSource
from clearstory.recipes.inference.vector_scores import VectorEvaluation, VectorScores
from clearstory.recipes.settings.vector_tasks import VectorTask, VectorTaskKind
from clearstory.tasks.data.association_sets import read_association_sets
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.data.similarity import Analogy, read_analogies, read_similarity
from clearstory.text.settings import ReadSettings
from clearstory.text.sources import expand_sources

SUFFIXES: dict[VectorTaskKind, tuple[str, ...]] = {
    "similarity": ("txt", "tsv", "csv", "jsonl", "parquet"),
    "analogy": ("txt",),
    "weat": (".txt", ".json"),
}
"""Files of a folder or glob that have sets."""


def evaluate_vectors(
    model: str | Path | ModelWithTokenizer,
    tasks: Sequence[VectorTask],
    *,
    vectors: VectorKind | None = None,
    reading: LabelSettings | None = None,
    truncate: Literal["left", "right"] | None = None,
    device: str | None = None,
) -> VectorEvaluation:
    """The scores of a model's vectors on each set of `tasks`.

    `vectors` selects input embeddings or sentence vectors; the default is sentence vectors for texts of several
    words, and if the model's folder defines a pooling, but input embeddings for analogies. `reading` sets
    the columns of pairs, `truncate` the end to drop of a sentence that exceeds the context. Raises CannotDo
    for a model without token embeddings, BadInput for a file without a set.
    """
    files = [(kind, file) for kind, source in tasks for file in files_of(kind, source)]
    source = VectorSource(model, device, truncate)
    started = time.perf_counter()
    scores: dict[VectorTaskKind, Callable[[VectorSource, Path, VectorKind | None], VectorScores]] = {
        "similarity": partial(evaluate_similarity, reading=reading),
        "analogy": evaluate_analogies,
        "weat": evaluate_associations,
    }
    found = tuple(scores[kind](source, file, vectors) for kind, file in files)
    return VectorEvaluation(sets=found, seconds=time.perf_counter() - started)


def files_of(kind: VectorTaskKind, source: str) -> list[Path]:
    """The files with sets of a file, folder or glob. Raises BadInput if there are none."""
    [found] = expand_sources([source], ReadSettings(include=SUFFIXES[kind]))
    if not found.files:
        raise BadInput(f"{source} has no test sets; give a file, a folder or a glob")
    return sorted(found.files)


def evaluate_similarity(
    source: VectorSource, file: Path, kind: VectorKind | None, reading: LabelSettings | None = None
) -> VectorScores:
    """Spearman's correlation of the cosines of pairs with their scores."""
    data = read_similarity(file, reading)
    if data.kind != "scores":
        raise BadInput(f"{file} has pairs without scores; give two words or sentences and their similarity in each row")
    firsts, seconds = ([getattr(each, side) for each in data.examples] for side in ("anchor", "positive"))
    vectors = source.of_kind(kind or source.default([*firsts, *seconds]))
    found = vectors.find([*firsts, *seconds])
    known = found.known[: len(firsts)] & found.known[len(firsts) :]
    check_known(file, known, "pairs", minimum=2)
    unit = unit_rows(found.vectors).reshape(2, len(known), -1)[:, known]
    cosines = (unit[0].astype(np.float64) * unit[1]).sum(-1)
    scores = np.array([each.score for each in data.examples], dtype=np.float64)[known]

    def metrics(cosines: Any, scores: Any) -> dict[str, float]:
        return {"spearman": spearman(cosines, scores)}

    return VectorScores(
        task="similarity",
        name=file.name,
        metrics=metrics(cosines, scores),
        intervals=dict(bootstrap_metrics(metrics, cosines, scores)),
        vectors=vectors.summary,
        examples=int(known.sum()),
        skipped=int((~known).sum()),
        several_tokens=several_tokens([*firsts, *seconds], found.several_tokens),
    )


def evaluate_analogies(source: VectorSource, file: Path, kind: VectorKind | None) -> VectorScores:
    """The share of analogies whose last word is found among the words of the vocabulary and those of the file."""
    analogies = read_analogies(file)
    vectors = source.of_kind(kind or "input")
    question_words = [word for each in analogies for word in words_of(each)]
    words = list(dict.fromkeys([*vectors.vocabulary, *question_words]))
    found = vectors.find(words)
    index = {word: at for at, word in enumerate(words) if found.known[at]}
    known = np.array([all(word in index for word in words_of(each)) for each in analogies])
    check_known(file, known, "analogies")
    kept = [each for each, is_known in zip(analogies, known, strict=True) if is_known]
    rows = np.array([[index[word] for word in words_of(each)] for each in kept])
    _, names = np.unique([word.casefold() for word in words], return_inverse=True)
    # Words without a vector are zeros, which a cosine can prefer to negative ones.
    candidates = np.flatnonzero(found.known)
    row_of = np.cumsum(found.known) - 1
    answers = solve_analogies(found.vectors[candidates], row_of[rows[:, :3]], names[candidates])
    right = np.stack([names[candidates[answers[each]]] == names[rows[:, 3]] for each in METHODS], axis=1)

    def metrics(right: Any, _: Any) -> dict[str, float]:
        return dict(zip(METHODS, right.mean(0).tolist(), strict=True))

    return VectorScores(
        task="analogy",
        name=file.name,
        metrics=metrics(right, None),
        intervals=dict(bootstrap_metrics(metrics, right, right)),
        vectors=vectors.summary,
        examples=int(known.sum()),
        skipped=int((~known).sum()),
        several_tokens=several_tokens(words, found.several_tokens),
        details={
            "candidates": len(set(names[candidates].tolist())),
            "sections": section_scores(analogies, known, right),
        },
    )


def words_of(analogy: Analogy) -> tuple[str, str, str, str]:
    """The four words of an analogy."""
    return analogy.first, analogy.second, analogy.third, analogy.fourth


def section_scores(
    analogies: Sequence[Analogy], known: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """The accuracies of each section, in the order of the file."""
    sections = np.array([each.section for each in analogies])
    rows = []
    for name in dict.fromkeys(sections.tolist()):
        inside = sections[known] == name
        accuracies = right[inside].mean(0).tolist() if inside.any() else [None] * len(METHODS)
        rows.append(
            {
                "section": name,
                **dict(zip(METHODS, accuracies, strict=True)),
                "examples": int(inside.sum()),
                "skipped": int((~known & (sections == name)).sum()),
            }
        )
    return rows


def evaluate_associations(source: VectorSource, file: Path, kind: VectorKind | None) -> VectorScores:
    """Effect size and p of an association test."""
    sets = read_association_sets(file)
    words = [word for each in sets.all for word in each.words]
    vectors: TextVectors = source.of_kind(kind or source.default(words))
    found = vectors.find(words)
    edges = np.cumsum([len(each.words) for each in sets.all])[:-1]
    parts = []
    for each, values, known in zip(sets.all, *(np.split(part, edges) for part in found[:2]), strict=True):
        if not known.any():
            raise BadInput(f"{file}: no word of the set {each.name[:60]!r} is in the vocabulary; choose other words")
        parts.append(values[known])
    x, y, a, b = parts
    if len(x) + len(y) < 3:
        raise BadInput(
            f"{file} has {len(x) + len(y)} targets that are in the vocabulary; give at least two in each set"
        )
    test = association_test(x, y, a, b)
    return VectorScores(
        task="weat",
        name=file.name,
        metrics={"effect_size": test.effect_size, "p_value": test.p_value},
        vectors=vectors.summary,
        examples=int(found.known.sum()),
        skipped=int((~found.known).sum()),
        several_tokens=several_tokens(words, found.several_tokens),
        details={
            "targets": {each.name: len(part) for each, part in zip(sets.targets, (x, y), strict=True)},
            "attributes": {each.name: len(part) for each, part in zip(sets.attributes, (a, b), strict=True)},
            "permutations": test.permutations,
            "exact": test.exact,
        },
    )


def check_known(file: Path, known: npt.NDArray[np.bool_], what: str, minimum: int = 1) -> None:
    """Raise BadInput if fewer than `minimum` examples have words of the vocabulary."""
    if (count := int(known.sum())) < minimum:
        raise BadInput(
            f"{file}: {count or 'none'} of {len(known):,} {what} {'has' if count == 1 else 'have'} only words of the "
            "model's vocabulary; use a model with other tokens, or pass --vectors sentence"
        )


def several_tokens(words: Iterable[str], flags: npt.NDArray[np.bool_]) -> int:
    """The number of different words that are several tokens."""
    return len({word for word, flag in zip(words, flags.tolist(), strict=True) if flag})
