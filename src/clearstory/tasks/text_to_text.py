"""Translate and summarize: a target is generated for a source, by an encoder-decoder or by a decoder after a prompt.

Sutskever et al. 2014, with teacher forcing; for decoders Radford et al. 2019, section 3.6.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from torch import nn

from clearstory.errors import BadInput, CannotDo, ContextOverflow, MissingExtra, ModelWarning
from clearstory.evaluation.text_scores import SCORERS
from clearstory.models.base import LanguageModel, reads_source
from clearstory.models.capabilities import Capability, family_name, has_capability, require
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.lora import lora_layers, merge_lora
from clearstory.models.prompts import find_start_token_id
from clearstory.tasks.base import TaskSettings, TaskSpec
from clearstory.tasks.data.examples import DataSplits, LabeledData, ParallelExample
from clearstory.tasks.data.parallel import read_parallel_examples
from clearstory.tasks.evaluation import TaskEvaluation
from clearstory.tasks.target_rows import CausalTargets, Seq2SeqTargets, TargetRows, count_target_tokens
from clearstory.tasks.text_generation import GeneratedText, TargetDecoding, generate_targets, view_for_generation
from clearstory.tasks.text_to_text_format import TextToTextFormat, saved_settings
from clearstory.tasks.text_to_text_report import baseline_scores, described_outputs
from clearstory.tasks.text_to_text_settings import TextToTextTask
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.batches import Batch
from clearstory.training.objectives.base import LossTerms

Prediction = tuple[float, int]
"""Nats of a target, and its number of tokens."""


@dataclass(frozen=True)
class TextToText:
    """Generation of targets for sources.

    Args:
        name: translate or summarize.
        format: format of sources and targets.
        rows: encoding of sources and targets as rows of a batch, and their loss.
        decoding: generation of targets.
        config: the generation config to save.
        target_limit: maximum number of tokens of a target, including its end token; None for no limit.
        label_smoothing: share of each target spread over the vocabulary.
        max_eval_samples: number of validation examples whose targets are generated; 0 for all.
    """

    name: TextToTextTask
    format: TextToTextFormat
    rows: TargetRows[Any]
    decoding: TargetDecoding
    config: GenerationConfig
    target_limit: int | None = None
    label_smoothing: float = 0.0
    max_eval_samples: int = 0

    loss_unit = "target token"
    metric = "log_likelihood"

    def build_model(self, backbone: nn.Module) -> nn.Module:
        """The model itself. Raises CannotDo for one that is not trained by gradients."""
        require(backbone, Capability.GRADIENTS)
        return backbone

    def encode(self, examples: Sequence[ParallelExample]) -> list[Any]:
        """A row for each target of each source; warns of sources that are cut and of targets that are left out.

        Raises ContextOverflow for a source that is too long, unless it is to be cut.
        """
        rows, cut, long = [], [], []
        for index, example in enumerate(examples):
            source = self.format.encode_source(example.source, example.location)
            cut += [example] * source.is_cut
            for text in example.targets:
                target = self.format.target_ids(text)
                if self.target_limit is not None and len(target) > self.target_limit:
                    long.append((example, len(target)))
                else:
                    rows.append(self.rows.row(source.ids, target, index))
        if cut:
            warnings.warn(
                f"{len(cut):,} of {len(examples):,} sources have more than {self.format.source_limit:,} tokens and "
                f"are truncated, the first is {cut[0].location or 'a text'}",
                ModelWarning,
                stacklevel=2,
            )
        if long:
            example, length = long[0]
            message = (
                f"{len(long):,} of {len(rows) + len(long):,} targets have more than {self.target_limit:,} tokens and "
                f"are dropped, the first is {example.location or 'a text'} with {length:,}"
            )
            if not rows:
                raise ContextOverflow(f"{message}; raise max_target_length, or choose a model with a larger context")
            warnings.warn(message, ModelWarning, stacklevel=2)
        return rows

    def batch(self, rows: Sequence[Any]) -> Batch:
        """Rows as one padded batch."""
        return self.rows.batch(rows)

    def count_targets(self, batch: Batch) -> dict[str, int]:
        """Number of target tokens."""
        return count_target_tokens(batch)

    def loss(self, model: nn.Module, batch: Batch) -> LossTerms:
        """The negative log-likelihood of the targets, smoothed."""
        return self.rows.loss(model, batch, self.label_smoothing)

    def predict(self, model: nn.Module, rows: Sequence[Any]) -> list[Prediction]:
        """Nats and number of tokens of each target."""
        return self.rows.nats(model, rows)

    def fit_decision(self, model: nn.Module, predictions: Sequence[Prediction], rows: Sequence[Any]) -> Self:
        """The task itself, which decides nothing."""
        return self

    def score(self, predictions: Sequence[Prediction], rows: Sequence[Any]) -> dict[str, float]:
        """The mean log-likelihood of a target token in nats, and the loss, which is the same with its sign changed."""
        loss = sum(nats for nats, _ in predictions) / max(1, sum(count for _, count in predictions))
        return {"loss": loss, self.metric: -loss}

    def intervals(self, predictions: Sequence[Prediction], rows: Sequence[Any]) -> Mapping[str, tuple[float, float]]:
        """{}: the scores of generated texts have intervals."""
        return {}

    def details(
        self, predictions: Sequence[Prediction], rows: Sequence[Any], examples: Sequence[ParallelExample]
    ) -> dict[str, Any]:
        """{}: those of generated texts are in `evaluate_outputs`."""
        return {}

    def eval_samples(self, data: LabeledData[ParallelExample]) -> LabeledData[ParallelExample]:
        """The validation examples whose targets are generated: all, or `max_eval_samples` at equal distances."""
        count, limit = len(data), self.max_eval_samples
        if not limit or count <= limit:
            return data
        chosen = tuple(data.examples[index * count // limit] for index in range(limit))
        return replace(data, examples=chosen, name=f"{limit:,} of {count:,} of {data.name}")

    def generate(self, model: Any, examples: Sequence[ParallelExample]) -> Iterator[tuple[int, list[GeneratedText]]]:
        """The index of each example with the best text for its source."""
        sources = [self.format.encode_source(each.source, each.location).ids for each in examples]
        network = cast(LanguageModel, merge_lora(model) if lora_layers(model) else model)
        network = view_for_generation(network, self.format, [len(each) for each in sources], self.decoding, "auto")
        yield from generate_targets(network, self.format, sources, self.decoding)

    def evaluate_outputs(
        self, model: Any, outputs: Mapping[int, list[GeneratedText]], data: LabeledData[ParallelExample]
    ) -> TaskEvaluation:
        """Scores of the generated texts with intervals and signatures, those of the baselines (first sentence, source),
        and the mean log-likelihood of the references.
        """
        texts = [outputs[index][0].text for index in range(len(data.examples))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelWarning)  # said when the examples were encoded
            rows = self.encode(data.examples)
        predictions = self.predict(model, rows)
        likelihood = self.score(predictions, rows)
        metrics = {self.metric: likelihood[self.metric]}
        intervals: Mapping[str, tuple[float, float]] = {}
        details: dict[str, Any] = {"decoding": self.describe_decoding()}
        try:
            scores = SCORERS[self.name](texts, [each.targets for each in data.examples])
        except MissingExtra as error:
            details["note"] = str(error)
        else:
            metrics = {**scores.values(), **metrics}
            intervals = scores.intervals()
            details["signatures"] = scores.signatures()
            details["baselines"] = baseline_scores(self.name, scores, data.examples)
            details |= described_outputs(scores, texts, data.examples)
        return TaskEvaluation(self.name, data.name, len(data.examples), likelihood["loss"], metrics, intervals, details)

    def describe_decoding(self) -> str:
        """How targets are generated, in one phrase."""
        beams = "greedy search" if self.decoding.beam == 1 else f"{self.decoding.beam} beams"
        penalty = "" if self.decoding.beam == 1 else f", length penalty {self.decoding.length_penalty:g}"
        limit = "" if self.decoding.max_tokens is None else f", at most {self.decoding.max_tokens:,} tokens"
        prompt = self.format.description
        return f"{beams}{penalty}{limit}" + (f"; {prompt}" if prompt else "")


def make_text_to_text(
    task: TextToTextTask, data: DataSplits[ParallelExample], model: Any, tokenizer: Tokenizer, settings: TaskSettings
) -> TextToText:
    """The task for these data and this model. Raises CannotDo for a model that does not generate text."""
    if has_capability(model, Capability.CLASSIFIER):
        raise CannotDo(
            f"this model ({family_name(model)}) has a classification head and does not generate text; use its base "
            "model"
        )
    wanted = settings.text_to_text
    format = TextToTextFormat.of(task, model, tokenizer, wanted, settings.source_truncation, settings.generation_config)
    limit = wanted.max_target_length
    encoder_decoder = reads_source(model)
    # Nothing else tells a decoder, or a summary, how long it may be.
    bounded = not encoder_decoder or task == "summarize"
    known = settings.generation_config
    if limit is None and known is not None and saved_settings(known):
        limit = known.max_new_tokens
    longest = longest_target(format, data) if limit is None and bounded else limit
    if not encoder_decoder:
        format = replace(format, reserved=reserved_tokens(model, longest or 1))
    config = format.generation_config(known, longest)
    context = model.context
    target_context = None if context is None else (context if encoder_decoder else format.reserved)
    limits = [each for each in (limit, target_context) if each is not None]
    rows: TargetRows[Any] = CausalTargets()
    if encoder_decoder:
        start = find_start_token_id(model.config, tokenizer)
        if start is None:
            raise BadInput("this model has no start token for its decoder; set decoder_start_token_id")
        rows = Seq2SeqTargets(start)
    return TextToText(
        task,
        format,
        rows,
        TargetDecoding.of(config, reads_source=encoder_decoder),
        config,
        min(limits, default=None),
        settings.label_smoothing,
        settings.max_eval_samples,
    )


def longest_target(format: TextToTextFormat, data: DataSplits[ParallelExample]) -> int:
    """Number of tokens of the longest training target, its end included."""
    return max((len(format.target_ids(text)) for each in data.train.examples for text in each.targets), default=1)


def reserved_tokens(model: Any, longest: int) -> int:
    """Tokens of a decoder's context that are kept for targets: at most half of it."""
    return longest if model.context is None else min(longest, max(1, model.context // 2))


def spec_of(task: TextToTextTask) -> TaskSpec:
    """How the data of a task are read, and how it is made."""
    return TaskSpec(
        read=lambda sources, settings, known: read_parallel_examples(sources, settings),
        make=lambda data, model, tokenizer, settings: make_text_to_text(task, data, model, tokenizer, settings),
        known_labels=lambda model: None,
        next_command=f'clearstory {task} {{run}} "..."',
    )


TRANSLATE, SUMMARIZE = spec_of("translate"), spec_of("summarize")
