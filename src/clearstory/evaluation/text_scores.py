"""Scores of generated texts against references: BLEU, chrF and TER by sacrebleu, ROUGE by rouge-score, with intervals.

A metric is a function of statistics that are summed over texts, so that a resample of the texts costs a product of
matrices (Efron 1979; Koehn 2004 for two systems on the same texts).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadInput, MissingExtra
from clearstory.metrics import CONFIDENCE, RESAMPLES, percentile_interval, resample_counts, sacrebleu

Floats = npt.NDArray[np.float64]

LOWER_IS_BETTER = frozenset(("ter",))

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
"""The first metric selects which of several references a text is compared with."""


@dataclass(frozen=True)
class TextMetric:
    """One metric of a set of texts.

    Args:
        name: its name: bleu, chrf, ter, rouge1, rouge2, rougeL.
        signature: how it was computed: the library's version and its settings.
        statistics: sums of each text, (N, K).
        compute: the score of summed statistics, (K,), from 0 to 100.
    """

    name: str
    signature: str
    statistics: Floats
    compute: Callable[[Floats], float]

    @property
    def score(self) -> float:
        """The score of all texts."""
        return self.compute(self.statistics.sum(0))

    def resampled(self, samples: int = RESAMPLES, seed: int = 0) -> Floats:
        """Scores of resamples of the texts, (S,): the same texts for every metric of as many texts."""
        sums = resample_counts(len(self.statistics), samples, seed) @ self.statistics
        return np.array([self.compute(each) for each in sums])

    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval by bootstrap over texts; None for fewer than two."""
        return percentile_interval(self.resampled(), CONFIDENCE) if len(self.statistics) > 1 else None


@dataclass(frozen=True)
class TextScores:
    """The metrics of generated texts, in the order in which they are shown."""

    metrics: tuple[TextMetric, ...]

    def values(self) -> dict[str, float]:
        """Scores by name."""
        return {each.name: each.score for each in self.metrics}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals by name."""
        found = {each.name: each.interval() for each in self.metrics}
        return {name: interval for name, interval in found.items() if interval is not None}

    def signatures(self) -> dict[str, str]:
        """Signatures by name."""
        return {each.name: each.signature for each in self.metrics}

    def compared_with(self, other: TextScores) -> dict[str, dict[str, float]]:
        """By name, the difference to other texts for the same sources, its 95 % interval by paired bootstrap, and the
        share of the resamples in which these texts are better; {} for fewer than two.
        """
        if not self.metrics or len(self.metrics[0].statistics) < 2:
            return {}
        found = {}
        for own, others in zip(self.metrics, other.metrics, strict=True):
            differences = own.resampled() - others.resampled()
            low, high = percentile_interval(differences, CONFIDENCE)
            better = differences < 0 if own.name in LOWER_IS_BETTER else differences > 0
            difference = own.score - others.score
            found[own.name] = {"difference": difference, "low": low, "high": high, "better": float(better.mean())}
        return found


def translation_scores(
    texts: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenize: str = "13a",
    lowercase: bool = False,
) -> TextScores:
    """BLEU, chrF and TER of translations, each text with one reference or several, by sacrebleu (Post 2018).

    `tokenize` is the tokenizer of BLEU: 13a, intl, zh, char, none; `lowercase` ignores case in BLEU and chrF, TER does
    so in any case. Raises MissingExtra without sacrebleu, BadInput for another number of references.

    >>> scores = translation_scores(["The cat is on the mat."], [["The cat is on the mat.", "A cat."]])
    >>> scores.values()
    {'bleu': 100.0..., 'chrf': 100.0, 'ter': 0.0}
    """
    check_aligned(texts, references)
    library = sacrebleu()
    counted = max(map(len, references))
    # A text with fewer references than others has None in their place.
    streams = [[own[at] if at < len(own) else None for own in references] for at in range(counted)]
    made = {
        "bleu": library.BLEU(tokenize=tokenize, lowercase=lowercase, force=True),
        "chrf": library.CHRF(lowercase=lowercase),
        "ter": library.TER(),  # case does not count
    }
    metrics = []
    for name, metric in made.items():
        statistics = np.array(metric._extract_corpus_statistics(list(texts), streams), dtype=np.float64)
        signature = str(metric.get_signature())
        metrics.append(TextMetric(name, signature, statistics, scorer_of(metric)))
    return TextScores(tuple(metrics))


def scorer_of(metric: Any) -> Callable[[Floats], float]:
    """The score of summed statistics by a metric of sacrebleu."""

    def compute(sums: Floats) -> float:
        # Counts are whole; the length of several references is their mean.
        numbers = [int(each) if each.is_integer() else each for each in sums.tolist()]
        return float(metric._compute_score_from_stats(numbers).score)

    return compute


def summary_scores(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextScores:
    """ROUGE-1, ROUGE-2 and ROUGE-L (F1; Lin 2004) of summaries by rouge-score, with Porter's stemmer.

    Of several references, a text is compared with the one that gives the highest ROUGE-1, as in SciTLDR (Cachola et
    al. 2020). Raises MissingExtra without rouge-score, BadInput for another number of references.

    >>> summary_scores(["The cats sat."], [["A dog ran.", "A cat sat down."]]).values()  # 2 of 3, 2 of 4
    {'rouge1': 57.1..., 'rouge2': 40.0, 'rougeL': 57.1...}
    """
    check_aligned(texts, references)
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError:
        raise MissingExtra("ROUGE needs rouge-score: pip install 'clearstory[eval]'") from None
    latin = is_latin([reference for own in references for reference in own])
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer=True, tokenizer=None if latin else UnicodeWords())
    best = []
    for text, own in zip(texts, references, strict=True):
        scores = [scorer.score(reference, text) for reference in own]
        chosen = max(scores, key=lambda each: each[ROUGE_TYPES[0]].fmeasure)
        best.append([100 * chosen[name].fmeasure for name in ROUGE_TYPES])
    values, ones = np.array(best, dtype=np.float64), np.ones(len(best))
    words = "stemmer:porter" if latin else "words:unicode"
    several = max(map(len, references)) > 1
    signature = f"f1|{words}|{'refs:best-rouge1|' if several else ''}version:{version('rouge-score')}"
    return TextScores(
        tuple(
            TextMetric(name, signature, np.stack([values[:, at], ones], 1), mean_of_sums)
            for at, name in enumerate(ROUGE_TYPES)
        )
    )


def mean_of_sums(sums: Floats) -> float:
    """A sum divided by its count, (2,)."""
    return float(sums[0] / sums[1])


class UnicodeWords:
    """Words of any script in lower case; rouge-score's own tokenizer keeps only a to z and digits.

    A character of Chinese or Japanese is a word.
    """

    WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return self.WORD.findall(text.lower())


def is_latin(texts: Sequence[str]) -> bool:
    """Whether most letters of texts are a to z."""
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    return 2 * sum(letter.isascii() for letter in letters) >= len(letters)


def check_aligned(texts: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raise BadInput unless each text has a reference."""
    if len(texts) != len(references) or not texts or not all(references):
        raise BadInput(
            f"{len(texts):,} texts cannot be compared with the references of {len(references):,}; give at least one "
            "for each"
        )


SCORERS: Mapping[str, Callable[[Sequence[str], Sequence[Sequence[str]]], TextScores]] = {
    "translate": translation_scores,
    "summarize": summary_scores,
}
"""The scores of each task."""
