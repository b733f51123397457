"""Answers of a prompted model: by the likelihood of candidates, with contextual calibration, or by generated text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clearstory.evaluation.continuations import ContinuationScorer
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.generation.stream_decoder import StreamDecoder
from clearstory.metrics import Floats
from clearstory.models.base import reads_source
from clearstory.models.inference_model import inference_model
from clearstory.recipes.prompting.examples import PromptExample, content_free
from clearstory.recipes.prompting.prompts import PromptMaker
from clearstory.text.start_tokens import bos_or_eos_token_id

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Content-free inputs, over which label probabilities are averaged. Zhao et al. 2021, section 5."""

OnProgress = Callable[[int], None] | None


@dataclass(frozen=True)
class Answer:
    """The answer for one row.

    Args:
        chosen: index of the candidate; None if the generated text does not start with a candidate.
        scores: log-likelihoods of the candidates, (C,); empty for a generated answer.
        text: the generated text.
    """

    chosen: int | None
    scores: tuple[float, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class LikelihoodAnswers:
    """Chooses the candidate with the largest log-likelihood.

    Args:
        maker: makes the prompts.
        scorer: scores their candidates.
        per_character: whether log-likelihoods are divided by the length of the candidate.
    """

    maker: PromptMaker
    scorer: ContinuationScorer
    per_character: bool = False

    def scores(
        self, shots: Sequence[PromptExample], rows: Sequence[PromptExample], on_progress: OnProgress = None
    ) -> list[Floats]:
        """Log-likelihoods of the candidates of each row after these examples, (C,) each."""
        requests = self.maker.requests(shots, rows)
        flat = [request for row in requests for request in row]

        def progress(done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(done * len(rows) // total)

        found = iter(self.scorer.score(flat, progress))
        scores = [np.array([next(found).log_likelihood for _ in row]) for row in requests]
        if not self.per_character:
            return scores
        return [each / np.array(list(map(len, row.candidates))) for each, row in zip(scores, rows, strict=True)]

    def label_bias(self, shots: Sequence[PromptExample], row: PromptExample) -> Floats:
        """ln of the mean probability of each label after content-free inputs, (C,). Zhao et al. 2021, eq. 1."""
        found = self.scores(shots, [content_free(row, text) for text in CONTENT_FREE])
        return np.asarray(np.log(np.mean([softmax(each) for each in found], axis=0)))


def softmax(scores: Floats) -> Floats:
    """Probabilities of candidates from their log-likelihoods."""
    shifted = np.exp(scores - scores.max())
    return np.asarray(shifted / shifted.sum())


def choose(scores: Sequence[Floats], bias: Floats | None = None) -> list[Answer]:
    """The candidate with the largest score of each row, less the label bias where that is calibrated."""
    shifted = [each if bias is None else each - bias for each in scores]
    return [Answer(int(each.argmax()), tuple(each.tolist())) for each in shifted]


def generate_answers(
    maker: PromptMaker,
    shots: Sequence[PromptExample],
    rows: Sequence[PromptExample],
    max_tokens: int,
    on_progress: OnProgress = None,
) -> list[Answer]:
    """The candidate that the text generated after each prompt begins with, up to its first line feed."""
    model, tokenizer = inference_model(maker.model, "fp32"), maker.tokenizer
    engine = Engine(model)
    sampling = Sampling(max_tokens=max_tokens, temperature=0.0)
    start = bos_or_eos_token_id(tokenizer)
    decoders = []
    for row in maker.requests(shots, rows):
        ids = row[0].context
        source = ids if reads_source(model) else None
        prompt = () if source is not None else ids
        engine.add(prompt, sampling, eos_token_id=tokenizer.eos_token_id, start_token_id=start, source=source)
        decoders.append(StreamDecoder(tokenizer, ("\n\n",), prompt_ids=prompt))
    texts = [""] * len(rows)
    while engine.has_unfinished:
        for output in engine.next_tokens():
            index = output.request
            if output.finished != "eos":
                texts[index] += decoders[index].push(output.token.id)
            if output.finished:
                texts[index] += decoders[index].flush()
            elif decoders[index].stopped or "\n" in texts[index].strip():
                engine.cancel(index)
        if on_progress is not None:
            on_progress(len(rows) - len(engine.running) - len(engine.waiting))
    return [Answer(find_candidate(text, row.candidates), text=text) for text, row in zip(texts, rows, strict=True)]


def find_candidate(text: str, candidates: Sequence[str]) -> int | None:
    """Index of the candidate at the start of a text, ignoring case and punctuation; the longest of several.

    >>> find_candidate(" Positive. The film", ["negative", "positive"]), find_candidate("maybe", ["yes", "no"])
    (1, None)
    """
    words = plain_words(text)
    found = [index for index, each in enumerate(candidates) if words[: len(plain_words(each))] == plain_words(each)]
    return max(found, key=lambda index: len(candidates[index]), default=None)


def plain_words(text: str) -> list[str]:
    """The words of a text in small letters, without punctuation."""
    return re.findall(r"\w+", text.casefold())
