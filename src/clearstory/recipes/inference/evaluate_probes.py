"""Probes: grammar, facts, reasoning and bias in one table, from the files of a folder, with their chance levels.

    grammar*      minimal pairs, as in BLiMP: sentence_good, sentence_bad
    facts*        passages whose last word is predicted, as in LAMBADA: lines of text, or "text"; clozes with "answer"
    reasoning*    questions with choices, as in ARC, PIQA and HellaSwag
    bias*         paired sentences, as in CrowS-Pairs: sent_more, sent_less
    weat*         sets of words, as in `evaluate --task weat`

A causal model is evaluated by likelihood, an encoder by pseudo-log-likelihood (Salazar et al. 2020) on probes of whole
sentences.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clearstory.durable import replace_files
from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.evaluation.classification import bootstrap_metrics
from clearstory.recipes.inference.harness_files import read_rows
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer
from clearstory.recipes.inference.probe_scores import ProbeEvaluation, ProbeKind, ProbeScore
from clearstory.recipes.inference.sentence_scorer import SentenceScorer
from clearstory.recipes.settings.evaluation_tasks import BenchmarkSettings
from clearstory.recipes.settings.vector_tasks import VectorTask
from clearstory.tasks.data.choices import ChoiceQuestion, read_choice_questions

PROBE_KINDS: tuple[ProbeKind, ...] = ("grammar", "facts", "reasoning", "bias", "weat")
"""Probes in the order of the table; the names of their files, or of their folders, begin so."""

PAIRED = ("sent_more", "sent_less")
"""Fields of paired sentences: the more and the less stereotypical sentence (Nangia et al. 2020)."""


def evaluate_probes(
    model: str | Path | ModelWithTokenizer,
    settings: BenchmarkSettings,
    *,
    limit: int | None = None,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ProbeEvaluation:
    """The scores of a model on all probes for which the folder `probe_files` has a file, with at most `limit` examples
    of each.

    Raises BadSetting without a folder, BadInput for one without any probe, and for a file that cannot be read.
    """
    if settings.probe_files is None:
        raise BadSetting("task probes reads a folder of files; give it with --probe-files")
    folder = expand_home(settings.probe_files)
    files = find_probe_files(folder)
    network, tokenizer = load_model_and_tokenizer(model, device)
    scorer = SentenceScorer(network, tokenizer, on_progress)
    started = time.perf_counter()
    scores, skipped = [], []
    for kind in PROBE_KINDS:
        if not files[kind]:
            skipped.append(f"{kind}: {folder} has no file {kind}*.jsonl")
        for file in files[kind]:
            try:
                scores.append(PROBES_BY_KIND[kind](scorer, file, limit, model))
            except CannotDo as error:
                skipped.append(f"{kind}: {file.name} is skipped: {error}")
    evaluation = ProbeEvaluation(scores=tuple(scores), skipped=tuple(skipped), seconds=time.perf_counter() - started)
    if settings.out is not None:
        out = expand_home(settings.out)
        out.mkdir(parents=True, exist_ok=True)
        replace_files(out, {"probes.json": (json.dumps(evaluation.to_json(), indent=2) + "\n").encode()})
    return evaluation


def find_probe_files(folder: Path) -> dict[ProbeKind, list[Path]]:
    """The files of each probe: those whose name begins with it, and those of a folder with its name.

    Raises BadInput if there is none at all.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give one with files such as grammar.jsonl and reasoning.jsonl")
    found: dict[ProbeKind, list[Path]] = {}
    for kind in PROBE_KINDS:
        inside = folder / kind
        found[kind] = sorted(
            path
            for path in [*folder.glob(f"{kind}*"), *(inside.glob("*") if inside.is_dir() else ())]
            if path.is_file() and not path.name.startswith(".")
        )
    if not any(found.values()):
        names = ", ".join(f"{kind}*" for kind in PROBE_KINDS)
        raise BadInput(f"{folder} has no probe files; their names begin with {names}")
    return found


def probe_grammar(scorer: SentenceScorer, file: Path, limit: int | None, _: Any) -> ProbeScore:
    """The share of minimal pairs whose good sentence is the more likely one."""
    pairs = [
        (text_field(row, "sentence_good", location), text_field(row, "sentence_bad", location))
        for location, row in first_rows(file, limit)
    ]
    return paired_score("grammar", "acc", scorer, file, pairs)


def probe_bias(scorer: SentenceScorer, file: Path, limit: int | None, _: Any) -> ProbeScore:
    """The share of paired sentences whose more stereotypical one is the more likely one. Nangia et al. 2020."""
    pairs = [
        (text_field(row, PAIRED[0], location), text_field(row, PAIRED[1], location))
        for location, row in first_rows(file, limit)
    ]
    return paired_score("bias", "stereotype", scorer, file, pairs)


def paired_score(
    kind: ProbeKind, metric: str, scorer: SentenceScorer, file: Path, pairs: Sequence[tuple[str, str]]
) -> ProbeScore:
    """The share of pairs whose first sentence is the more likely one."""
    scores = np.array(scorer.texts([text for pair in pairs for text in pair])).reshape(-1, 2)
    return share_score(kind, metric, file, scores[:, 0] > scores[:, 1], 0.5, scorer.measure)


def probe_facts(scorer: SentenceScorer, file: Path, limit: int | None, _: Any) -> ProbeScore:
    """The share of passages whose last word, or whose answer, is what greedy decoding writes."""
    pairs = []
    for location, row in first_rows(file, limit):
        text = text_field(row, "text", location)
        answer = row.get("answer")
        if isinstance(answer, str) and answer.strip():
            pairs.append((text.rstrip(), f" {answer.strip()}"))
            continue
        context, separator, word = text.rpartition(" ")
        if not separator:
            raise BadInput(f"{location}: {text[:40]!r} is one word; give a passage, or an answer")
        pairs.append((context, f" {word}"))
    right = np.array([is_greedy for _, is_greedy in scorer.continuations(pairs)])
    return share_score("facts", "acc", file, right, 0.0, scorer.measure)


def probe_reasoning(scorer: SentenceScorer, file: Path, limit: int | None, _: Any) -> ProbeScore:
    """The share of questions whose right choice is the most likely per character."""
    questions = list(read_choice_questions(file).examples)[:limit]
    pairs = [pair for question in questions for pair in choice_pairs(question)]
    found = iter(scorer.continuations(pairs))
    right = []
    for question in questions:
        values = [next(found)[0] / len(choice) for choice in question.choices]
        right.append(int(np.argmax(values)) == question.answer_index)
    chance = float(np.mean([1 / len(question.choices) for question in questions]))
    return share_score("reasoning", "acc_norm", file, np.array(right), chance, scorer.measure)


def choice_pairs(question: ChoiceQuestion) -> list[tuple[str, str]]:
    """Context and continuation of each choice; a question with this ending is formatted as in lm-evaluation-harness."""
    text = question.question
    if text.endswith("?"):
        text = f"Question: {text}\nAnswer:"
    return [(text, f" {choice}" if text else choice) for choice in question.choices]


def probe_weat(scorer: SentenceScorer, file: Path, limit: int | None, model: Any) -> ProbeScore:
    """The effect size of an association test of the model's vectors; 0 without bias. Caliskan et al. 2017."""
    from clearstory.recipes.inference.evaluate_vectors import evaluate_vectors

    [found] = evaluate_vectors(model, [VectorTask("weat", str(file))]).sets
    return ProbeScore(
        "weat", file.name, "effect size", found.metrics["effect_size"], None, 0.0, found.examples, "vectors"
    )


def share_score(kind: ProbeKind, metric: str, file: Path, right: Any, chance: float, measure: str) -> ProbeScore:
    """A share of examples with its interval."""
    values = np.asarray(right, dtype=np.float64)

    def share(found: Any, _: Any) -> dict[str, float]:
        return {metric: float(found.mean())}

    interval = bootstrap_metrics(share, values, values).get(metric)
    return ProbeScore(kind, file.name, metric, float(values.mean()), interval, chance, len(values), measure)


def first_rows(file: Path, limit: int | None) -> list[tuple[str, dict[str, Any]]]:
    """The first rows of a file with their locations. Raises BadInput if there is none."""
    rows = read_rows(file)[:limit]
    if not rows:
        raise BadInput(f"{file} is empty; give one row per example")
    return rows


def text_field(row: Mapping[str, Any], name: str, location: str) -> str:
    """The text in a field. Raises BadInput if it is missing or empty."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{location} has no text {name!r}, only {', '.join(map(repr, row))}; give one")
    return value.strip()


PROBES_BY_KIND: dict[ProbeKind, Callable[[SentenceScorer, Path, int | None, Any], ProbeScore]] = {
    "grammar": probe_grammar,
    "facts": probe_facts,
    "reasoning": probe_reasoning,
    "bias": probe_bias,
    "weat": probe_weat,
}
"""The function of each probe."""
