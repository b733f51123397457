"""Choose: multiple-choice questions, answered by the likelihood of each choice.

Trained by cross-entropy over the choices' log-likelihoods per token, and by the likelihood of the right choice. Liu et
al. 2022, "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning", eq. 1 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearstory.errors import BadInput, BadSetting, ContextOverflow
from clearstory.evaluation.classification import bootstrap_metrics
from clearstory.evaluation.continuation_requests import ContinuationRequest
from clearstory.evaluation.continuations import ContinuationScorer
from clearstory.evaluation.seq2seq import Seq2SeqModel
from clearstory.models import cross_entropy
from clearstory.models.base import IGNORE_INDEX, LanguageModel, TokenBatch, reads_source
from clearstory.models.capabilities import Capability, require
from clearstory.models.prompts import encode_prompt, find_start_token_id
from clearstory.tasks.base import TaskSettings, TaskSpec
from clearstory.tasks.choice_scores import Prediction, choice_metrics, question_loss, right_choices
from clearstory.tasks.data.choices import ChoiceQuestion, read_choice_questions
from clearstory.tasks.data.examples import DataSplits
from clearstory.text.continuation_encoding import encode_continuation
from clearstory.text.encoding import encode_text
from clearstory.text.start_tokens import bos_or_eos_token_id
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.batches import TensorBatch
from clearstory.training.objectives.base import LossTerm, LossTerms

WORST = 20
"""Questions whose right choice is the least likely that a report shows."""


@dataclass(frozen=True)
class ChoiceRow:
    """A question as the model reads it: its context and each choice as token ids.

    Args:
        requests: context and choice, for each choice.
        sizes: number of characters of each choice.
        answer: index of the right one.
        example: index of the example.
    """

    requests: tuple[ContinuationRequest, ...]
    sizes: tuple[int, ...]
    answer: int
    example: int

    @property
    def length(self) -> int:
        """Number of tokens of all sequences, each as long as the longest."""
        return len(self.requests) * max(len(each.context) + len(each.continuation) for each in self.requests)


@dataclass(frozen=True)
class ChoiceBatch(TensorBatch):
    """Questions, each with the concatenated sequences of its choices in one row: tokens (Q, C · T).

    Args:
        targets: the tokens of the choices, (Q, C · T); IGNORE_INDEX elsewhere.
        is_choice: which of C sequences are choices, (Q, C); the others are padding.
        answers: index of the correct choice, (Q,).
    """

    targets: Int[Tensor, "Q N"]
    is_choice: Bool[Tensor, "Q C"]
    answers: Int[Tensor, "Q"]


@dataclass(frozen=True)
class SourceChoiceBatch(ChoiceBatch):
    """The same for an encoder-decoder: the rows have the choices alone.

    Args:
        source: the questions, (Q, S).
    """

    source: TokenBatch


@dataclass(frozen=True)
class Choose:
    """Selection of the correct continuation.

    Args:
        tokenizer: the model's tokenizer.
        context: largest number of tokens that the model reads; None for no limit.
        truncate: whether the beginning of a question that is longer is left out.
    """

    tokenizer: Tokenizer
    context: int | None
    truncate: bool = False

    name = "choose"
    loss_unit = "question"
    metric = "acc"

    def build_model(self, backbone: nn.Module) -> nn.Module:
        """The model itself. Raises CannotDo for one without gradients."""
        require(backbone, Capability.GRADIENTS)
        return backbone

    def encode(self, examples: Sequence[ChoiceQuestion]) -> list[ChoiceRow]:
        """The sequences of each question. Raises ContextOverflow, with its place, for one that is too long."""
        return [self.row(index, example) for index, example in enumerate(examples)]

    def row(self, index: int, example: ChoiceQuestion) -> ChoiceRow:
        """One question. A space divides it from its choices."""
        context: dict[str, tuple[int, ...]] = {}

        def encode(text: str) -> Sequence[int]:
            if text not in context:
                context[text] = encode_text(self.tokenizer, text).ids
            return context[text]

        start = bos_or_eos_token_id(self.tokenizer)
        requests = []
        for choice in example.choices:
            text = f" {choice}" if example.question else choice
            first, rest = encode_continuation(example.question, text, encode, self.tokenizer.encode, start)
            longest = len(first) + len(rest) - 1
            if self.context is not None and longest > self.context:
                if not self.truncate or len(rest) > self.context:
                    raise ContextOverflow(
                        f"{example.location}: the question with a choice has {longest:,} tokens, but the model's "
                        f"context holds {self.context:,}; pass --truncate left to drop the question's beginning"
                    )
                first = first[-(self.context + 1 - len(rest)) :]
            requests.append(ContinuationRequest(tuple(first), tuple(rest)))
        return ChoiceRow(tuple(requests), tuple(map(len, example.choices)), example.answer_index, index)

    def batch(self, rows: Sequence[ChoiceRow]) -> ChoiceBatch:
        """Rows as one padded batch."""
        count = max(len(row.requests) for row in rows)
        longest = max(len(each.context) + len(each.continuation) - 1 for row in rows for each in row.requests)
        ids = torch.zeros(len(rows), count, longest, dtype=torch.long)
        targets = torch.full_like(ids, IGNORE_INDEX)
        is_choice = torch.zeros(len(rows), count, dtype=torch.bool)
        for index, row in enumerate(rows):
            for number, each in enumerate(row.requests):
                inputs = [*each.context, *each.continuation[:-1]]
                ids[index, number, : len(inputs)] = torch.tensor(inputs)
                start = len(each.context) - 1
                targets[index, number, start : len(inputs)] = torch.tensor(each.continuation)
                is_choice[index, number] = True
        answers = torch.tensor([row.answer for row in rows])
        return ChoiceBatch(TokenBatch(ids.flatten(1)), targets.flatten(1), is_choice, answers)

    def count_targets(self, batch: ChoiceBatch) -> dict[str, int]:
        """Number of questions."""
        return {"choice": len(batch.answers)}

    def loss(self, model: nn.Module, batch: ChoiceBatch) -> LossTerms:
        """Cross-entropy over the choices, and nats per token of the right one, summed over questions."""
        questions, count = batch.is_choice.shape
        ids, targets = batch.tokens.ids.view(questions * count, -1), batch.targets.view(questions * count, -1)
        nats = self.nats(model, batch, TokenBatch(ids), targets)
        sizes = (targets != IGNORE_INDEX).sum(1).clamp(min=1)
        per_token = (nats.sum(1) / sizes).view(questions, count)
        return {"choice": LossTerm(question_loss(per_token, batch.is_choice, batch.answers).sum(), questions)}

    def nats(
        self, model: nn.Module, batch: Any, tokens: TokenBatch, targets: Int[Tensor, "R T"]
    ) -> Float[Tensor, "R T"]:
        """Nats of the targets, for each choice of each question of a batch."""
        nats: Tensor = cast(LanguageModel, model).token_nll(tokens, targets)[0]
        return nats

    def scorer(self, model: nn.Module) -> ContinuationScorer:
        """What computes the log-likelihoods of choices."""
        return ContinuationScorer(cast(LanguageModel, model))

    def predict(self, model: nn.Module, rows: Sequence[ChoiceRow]) -> list[Prediction]:
        """Log-likelihoods of the choices of each question."""
        requests = [request for row in rows for request in row.requests]
        found = iter(self.scorer(model).score(requests))
        return [tuple(next(found).log_likelihood for _ in row.requests) for row in rows]

    def fit_decision(self, model: nn.Module, predictions: Sequence[Prediction], rows: Sequence[ChoiceRow]) -> Self:
        """The task itself, which has no threshold."""
        return self

    def score(self, predictions: Sequence[Prediction], rows: Sequence[ChoiceRow]) -> dict[str, float]:
        """Accuracy by total log-likelihood (acc) and by that per character (acc_norm), as in lm-evaluation-harness; and
        the mean loss.
        """
        count = max(len(row.requests) for row in rows)
        per_token = torch.zeros(len(rows), count, dtype=torch.float64)
        is_choice = torch.zeros(len(rows), count, dtype=torch.bool)
        for index, (prediction, row) in enumerate(zip(predictions, rows, strict=True)):
            values = [-nats / len(each.continuation) for nats, each in zip(prediction, row.requests, strict=True)]
            per_token[index, : len(values)] = torch.tensor(values, dtype=torch.float64)
            is_choice[index, : len(values)] = True
        answers = torch.tensor([row.answer for row in rows])
        loss = float(question_loss(per_token, is_choice, answers).mean())
        return {"loss": loss, **choice_metrics(right_choices(predictions, rows), answers.numpy())}

    def intervals(
        self, predictions: Sequence[Prediction], rows: Sequence[ChoiceRow]
    ) -> Mapping[str, tuple[float, float]]:
        """The 95 % interval of each metric, by bootstrap over questions."""
        right = right_choices(predictions, rows)
        return bootstrap_metrics(choice_metrics, right, np.zeros(len(right)))

    def details(
        self, predictions: Sequence[Prediction], rows: Sequence[ChoiceRow], examples: Sequence[ChoiceQuestion]
    ) -> dict[str, Any]:
        """The accuracy of chance, and the questions whose correct choice is least likely relative to the chosen one."""
        chance = sum(1 / len(row.requests) for row in rows) / max(1, len(rows))
        margins = [max(each) - each[row.answer] for each, row in zip(predictions, rows, strict=True)]
        order = sorted((at for at, margin in enumerate(margins) if margin > 0), key=lambda at: -margins[at])
        worst = [
            {
                "location": examples[at].location,
                "question": examples[at].question[-200:],
                "answer": examples[at].choices[examples[at].answer_index][:200],
                "chosen": examples[at].choices[int(np.argmax(predictions[at]))][:200],
                "nats": margins[at],
            }
            for at in order[:WORST]
        ]
        return {"chance": chance, "worst": worst}


@dataclass(frozen=True)
class ChooseTarget(Choose):
    """Selection of the correct target by an encoder-decoder, which reads the question as its source.

    Args:
        encode_source: the token ids that the model reads of a question.
        decoder_start_token_id: the token that targets are read after.
    """

    _: KW_ONLY
    encode_source: Callable[[str], tuple[int, ...]]
    decoder_start_token_id: int

    def row(self, index: int, example: ChoiceQuestion) -> ChoiceRow:
        """One question, and its choices without end tokens."""
        source, limit = self.encode_source(example.question), self.context
        targets = [tuple(self.tokenizer.encode(choice.strip())) for choice in example.choices]
        for ids, what in [(source, "the question"), *((each, "a choice") for each in targets)]:
            if limit is not None and len(ids) > limit and not (self.truncate and ids is source):
                way_out = "; pass --truncate left to drop its beginning" if ids is source else "; shorten it"
                raise ContextOverflow(
                    f"{example.location}: {what} has {len(ids):,} tokens, but the model's context holds {limit:,}"
                    f"{way_out}"
                )
        source = source if limit is None else source[-limit:]
        requests = tuple(ContinuationRequest(source, target) for target in targets)
        return ChoiceRow(requests, tuple(map(len, example.choices)), example.answer_index, index)

    def batch(self, rows: Sequence[ChoiceRow]) -> SourceChoiceBatch:
        """Rows as one padded batch; decoder inputs are the start token and the choice shifted right by one."""
        start = (self.decoder_start_token_id,)
        choices = [replace(row, requests=tuple(replace(each, context=start) for each in row.requests)) for row in rows]
        made = super().batch(choices)
        source = TokenBatch.from_sequences([row.requests[0].context for row in rows])
        return SourceChoiceBatch(made.tokens, made.targets, made.is_choice, made.answers, source)

    def nats(
        self, model: nn.Module, batch: Any, tokens: TokenBatch, targets: Int[Tensor, "R T"]
    ) -> Float[Tensor, "R T"]:
        """Nats of the targets; each question is read once for each of its choices."""
        network, count = cast(Seq2SeqModel, model), batch.is_choice.shape[1]
        lengths = batch.source.lengths
        source = TokenBatch(
            batch.source.ids.repeat_interleave(count, 0), None if lengths is None else lengths.repeat_interleave(count)
        )
        hidden, _ = network(tokens, source=source)
        return cross_entropy.linear_cross_entropy(hidden, network.output_weight, targets, network.unembedding_bias)

    def scorer(self, model: nn.Module) -> ContinuationScorer:
        """What computes the log-likelihoods of choices given their sources."""
        return ContinuationScorer(cast(LanguageModel, model), self.decoder_start_token_id)


def make_choose(data: DataSplits[Any], model: Any, tokenizer: Tokenizer, settings: TaskSettings) -> Choose:
    """The task for a model and its tokenizer. Raises CannotDo for a model that is not causal."""
    require(model, Capability.CAUSAL)
    if settings.truncate == "right":
        raise BadSetting("truncate is right, but the choices are at the end; pass left")
    truncate = settings.truncate == "left"
    if not reads_source(model):
        return Choose(tokenizer, model.context, truncate)
    start = find_start_token_id(model.config, tokenizer)
    if start is None:
        raise BadInput("this model has no start token for its decoder; set decoder_start_token_id")
    return ChooseTarget(
        tokenizer,
        model.context,
        truncate,
        encode_source=lambda text: encode_prompt(model, tokenizer, text).ids,
        decoder_start_token_id=start,
    )


CHOOSE = TaskSpec(
    read=lambda sources, settings, known: read_choice_questions(sources, settings),
    make=make_choose,
    known_labels=lambda model: None,
    next_command="clearstory evaluate {run} QUESTIONS --task choose",
)
