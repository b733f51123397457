"""Generation of targets: the texts that a model generates for sources, in batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from clearstory.generation.beam_search import beam_search_batch
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.base import LanguageModel
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.inference_model import inference_model
from clearstory.models.precision import Precision
from clearstory.tasks.text_to_text_format import TextToTextFormat

EXTRA_TOKENS = 50
"""Maximum number of tokens of a target beyond the length of its source. Vaswani et al. (2017), section 6.1."""

BEAM = 4
"""Default number of beams of an encoder-decoder, if not set in its generation config."""

BATCH_ROWS, BATCH_TOKENS = 96, 4096
"""Beams and source tokens of one batch: weights are read once for all of them."""

BATCH_SIZE = 32
"""Prompts of decoders that are continued at once."""

DECODER_TOKENS = 200
"""Default maximum number of tokens of a decoder's target."""


@dataclass(frozen=True, kw_only=True)
class GeneratedText:
    """A text with its number of tokens, and its score: log-probability / length ** penalty."""

    text: str
    tokens: int
    score: float


@dataclass(frozen=True, kw_only=True)
class TargetDecoding:
    """How targets are generated.

    Args:
        beam: number of beams; 1 is greedy search.
        length_penalty: exponent of the length in the score of a beam.
        max_tokens: largest number of tokens; None: by the length of the source.
        repetition_penalty: lowers the logits of tokens already there.
        n_best: number of texts for each source, best first.
    """

    beam: int = 1
    length_penalty: float = 1.0
    max_tokens: int | None = None
    repetition_penalty: float = 1.0
    n_best: int = 1

    @classmethod
    def of(
        cls,
        config: GenerationConfig,
        *,
        reads_source: bool,
        beam: int | None = None,
        length_penalty: float | None = None,
        max_tokens: int | None = None,
        n_best: int = 1,
    ) -> TargetDecoding:
        """The settings that are given, else those of a generation config, else BEAM beams for an encoder-decoder and
        greedy search for a decoder; as many beams as texts at least.
        """
        own = beam or config.num_beams or (BEAM if reads_source else 1)
        known = config.length_penalty if length_penalty is None else length_penalty
        return cls(
            beam=max(own, n_best),
            length_penalty=1.0 if known is None else known,
            max_tokens=max_tokens or config.max_new_tokens,
            repetition_penalty=config.repetition_penalty or 1.0,
            n_best=n_best,
        )

    def limit(self, source_length: int, format: TextToTextFormat) -> int:
        """Largest number of tokens for a source of this length."""
        if self.max_tokens is not None:
            return self.max_tokens
        if format.reads_source:
            return source_length + EXTRA_TOKENS
        context = format.model.context
        return DECODER_TOKENS if context is None else max(1, min(DECODER_TOKENS, context - source_length))

    def batch_size(self, format: TextToTextFormat) -> int:
        """Largest number of sources of a batch."""
        return max(1, BATCH_ROWS // self.beam) if format.reads_source else max(1, BATCH_SIZE // self.beam)

    @property
    def sampling(self) -> Sampling:
        """The settings of search."""
        return Sampling(
            beam=self.beam,
            length_penalty=self.length_penalty,
            repetition_penalty=self.repetition_penalty,
            temperature=0.0 if self.beam == 1 else 1.0,
        )


def generate_targets(
    model: LanguageModel, format: TextToTextFormat, sources: Sequence[Sequence[int]], decoding: TargetDecoding
) -> Iterator[tuple[int, list[GeneratedText]]]:
    """The index of each source with its `n_best` texts, best first, as they are finished: the longest sources first, so
    that the remaining time is not underestimated.

    `model` is the one of the format, or a view of it for inference. A text does not depend on the other sources.
    """
    order = sorted(range(len(sources)), key=lambda index: -len(sources[index]))
    limits = {index: decoding.limit(len(sources[index]), format) for index in order}
    if decoding.beam == 1 and not format.reads_source:
        yield from continue_greedily(model, format, {index: sources[index] for index in order}, limits, decoding)
        return
    for batch in batches_of_sources([len(source) for source in sources], decoding.batch_size(format)):
        read = [sources[index] for index in batch]
        longest = [limits[index] for index in batch]
        found = beam_search_batch(
            model,
            [[] for _ in batch] if format.reads_source else read,
            replace(decoding.sampling, max_tokens=max(longest)),
            sources=read if format.reads_source else None,
            max_tokens=longest,
            **format.prompt_format.search_options,
        )
        for index, beams in zip(batch, found, strict=True):
            texts = [
                GeneratedText(text=format.decode(each.ids), tokens=len(each.ids), score=each.score) for each in beams
            ]
            yield index, texts[: decoding.n_best]


def batches_of_sources(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indices of sources in batches of similar lengths, of at most `most` sources and BATCH_TOKENS tokens, the longest
    first.

    >>> batches_of_sources([3, 5, 4], 2)
    [[1, 2], [0]]
    """
    batches: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not batches or len(batches[-1]) == most or tokens + lengths[index] > BATCH_TOKENS:
            batches.append([])
            tokens = 0
        batches[-1].append(index)
        tokens += lengths[index]
    return batches


def view_for_generation(
    model: LanguageModel,
    format: TextToTextFormat,
    lengths: Sequence[int],
    decoding: TargetDecoding,
    precision: Precision,
) -> LanguageModel:
    """The inference form of a model for sources of these lengths, packed where that takes less time than it saves."""
    size = min(len(lengths), decoding.batch_size(format))
    rounds = -(-len(lengths) // max(1, size))
    steps = rounds * max((decoding.limit(length, format) for length in lengths), default=1)
    return inference_model(model, precision, decoding.beam * max(1, size), steps)


def continue_greedily(
    model: LanguageModel,
    format: TextToTextFormat,
    prompts: dict[int, Sequence[int]],
    limits: dict[int, int],
    decoding: TargetDecoding,
) -> Iterator[tuple[int, list[GeneratedText]]]:
    """The most likely token each time after each prompt, many at once."""
    engine = Engine(model, BATCH_SIZE, format.prompt_format.suppress_tokens)
    options = format.prompt_format.request_options
    index_of, ids, total = {}, dict[int, list[int]](), dict[int, float]()
    for index, prompt in prompts.items():
        sampling = replace(decoding.sampling, max_tokens=limits[index], seed=0)
        index_of[engine.add(prompt, sampling, **options)] = index
        ids[index], total[index] = [], 0.0
    while engine.has_unfinished:
        for output in engine.next_tokens():
            index = index_of[output.request]
            ids[index].append(output.token.id)
            total[index] += output.token.logprob
            if output.finished:
                count = len(ids[index])
                score = total[index] / count**decoding.length_penalty
                yield index, [GeneratedText(text=format.decode(tuple(ids[index])), tokens=count, score=score)]
