"""Chat: conversations, of which the assistant's tokens are predicted. Ouyang et al. 2022, section 3.5."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import nn

from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow, ModelWarning
from clearstory.evaluation.classification import bootstrap_metrics
from clearstory.models.base import reads_source
from clearstory.models.capabilities import Capability, family_name, has_capability, require
from clearstory.tasks.base import TaskSettings, TaskSpec
from clearstory.tasks.causal_rows import CausalRow, causal_batch, causal_loss, count_predicted, row_nats
from clearstory.tasks.data.conversations import ConversationExample, read_conversations
from clearstory.tasks.data.examples import DataSplits
from clearstory.text.added_template import with_chat_template
from clearstory.text.assistant_tokens import TrainedSequence, trained_sequences
from clearstory.text.chat_prompt import ChatFormat, has_chat_template
from clearstory.text.messages import SYSTEM_ROLES
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.batches import Batch
from clearstory.training.objectives.base import LossTerms

WORST = 20
"""Conversations with the least likely answers that a report shows."""

Prediction = tuple[float, int]
"""Nats of a conversation's predicted tokens, and their number."""


@dataclass(frozen=True)
class Chat:
    """The prediction of the assistant's messages, given all before them.

    Args:
        format: the tokenizer with its chat template.
        context: largest number of tokens that the model reads; None for no limit.
        truncate: whether the first turns of a conversation that is longer are left out.
        assistant_only: whether the assistant's tokens alone are predicted.
        label_smoothing: share of each target spread over the vocabulary.
    """

    format: ChatFormat
    context: int | None
    truncate: bool = False
    assistant_only: bool = True
    label_smoothing: float = 0.0

    name = "chat"
    loss_unit = "assistant token"
    metric = "log_likelihood"

    def build_model(self, backbone: nn.Module) -> nn.Module:
        """The model itself. Raises CannotDo for one that does not predict the next token, or has no gradients."""
        check_decoder(backbone)
        require(backbone, Capability.GRADIENTS)
        return backbone

    def encode(self, examples: Sequence[ConversationExample]) -> list[CausalRow]:
        """The sequences of each conversation. Raises BadInput, with its place, for one that the template refuses."""
        rows, shortened = [], 0
        for index, example in enumerate(examples):
            sequences, dropped = self.sequences(example)
            shortened += dropped
            rows += [CausalRow(each.ids, each.predicted, index) for each in sequences]
        if shortened:
            warnings.warn(
                f"{shortened:,} of {len(examples):,} conversations are longer than the context of {self.context:,} "
                "tokens; their first turns are dropped",
                ModelWarning,
                stacklevel=2,
            )
        return rows

    def sequences(self, example: ConversationExample) -> tuple[list[TrainedSequence], bool]:
        """The sequences of a conversation, and whether its first turns were left out."""
        messages: Sequence[dict[str, Any]] = example.messages
        while True:
            try:
                sequences = trained_sequences(self.format, messages, assistant_only=self.assistant_only)
            except BadInput as error:
                raise BadInput(f"{example.location}: {error}") from None
            longest = max(len(each.ids) - 1 for each in sequences)  # the last token is not read
            if self.context is None or longest <= self.context:
                return sequences, len(messages) < len(example.messages)
            shorter = without_first_turn(messages) if self.truncate else ()
            if not shorter:
                only = "its last turn alone" if self.truncate else "the conversation"
                way_out = "shorten it" if self.truncate else "pass --truncate left to drop its first turns"
                raise ContextOverflow(
                    f"{example.location}: {only} has {longest:,} tokens, but the model's context holds "
                    f"{self.context:,}; {way_out}"
                )
            messages = shorter

    def batch(self, rows: Sequence[CausalRow]) -> Batch:
        """Rows as one padded batch."""
        return causal_batch(rows)

    def count_targets(self, batch: Batch) -> dict[str, int]:
        """Number of predicted tokens."""
        return count_predicted(batch)

    def loss(self, model: nn.Module, batch: Batch) -> LossTerms:
        """The negative log-likelihood of the predicted tokens."""
        return causal_loss(model, batch, self.label_smoothing)

    def predict(self, model: nn.Module, rows: Sequence[CausalRow]) -> list[Prediction]:
        """Nats and number of predicted tokens of each conversation."""
        sums: dict[int, Prediction] = {}
        for row, (nats, count) in zip(rows, row_nats(model, rows), strict=True):
            before = sums.get(row.example, (0.0, 0))
            sums[row.example] = before[0] + nats, before[1] + count
        return list(sums.values())

    def fit_decision(self, model: nn.Module, predictions: Sequence[Prediction], rows: Sequence[CausalRow]) -> Self:
        """The task itself, which decides nothing."""
        return self

    def score(self, predictions: Sequence[Prediction], rows: Sequence[CausalRow]) -> dict[str, float]:
        """The mean log-likelihood of a predicted token in nats, its perplexity, and the loss."""
        metrics = token_metrics(*zip_predictions(predictions))
        return {"loss": -metrics["log_likelihood"], **metrics}

    def intervals(
        self, predictions: Sequence[Prediction], rows: Sequence[CausalRow]
    ) -> Mapping[str, tuple[float, float]]:
        """The 95 % interval of each metric, by bootstrap over conversations."""
        return bootstrap_metrics(token_metrics, *zip_predictions(predictions))

    def details(
        self,
        predictions: Sequence[Prediction],
        rows: Sequence[CausalRow],
        examples: Sequence[ConversationExample],
    ) -> dict[str, Any]:
        """The number of predicted tokens, and the conversations whose answers are the least likely."""
        order = sorted(range(len(predictions)), key=lambda at: -predictions[at][0] / max(1, predictions[at][1]))
        worst = [
            {
                "text": examples[at].text[-200:],
                "answer": examples[at].answer[:200],
                "location": examples[at].location,
                "nats_per_token": predictions[at][0] / max(1, predictions[at][1]),
            }
            for at in order[:WORST]
        ]
        return {"tokens": sum(count for _, count in predictions), "least_likely": worst}


def zip_predictions(predictions: Sequence[Prediction]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Nats and numbers of tokens of all conversations, (N,) each."""
    values = np.array(predictions, dtype=np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def token_metrics(nats: npt.NDArray[np.float64], tokens: npt.NDArray[np.float64]) -> dict[str, float]:
    """The mean log-likelihood of a token in nats, and the perplexity."""
    mean = float(nats.sum() / max(1.0, tokens.sum()))
    return {"log_likelihood": -mean, "perplexity": math.exp(min(mean, 700.0))}


def without_first_turn(messages: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The system messages, and the messages from the second user message on; () if there is none."""
    system = [each for each in messages if each["role"] in SYSTEM_ROLES]
    users = [index for index, each in enumerate(messages) if each["role"] == "user"]
    return [*system, *messages[users[1] :]] if len(users) > 1 else ()


def check_decoder(model: Any) -> None:
    """Raise CannotDo for a model that does not continue a conversation token by token."""
    if has_capability(model, Capability.CLASSIFIER):
        raise CannotDo("this model has a head for labels and does not generate text; use clearstory classify")
    if reads_source(model) or not has_capability(model, Capability.CAUSAL):
        kind = "an encoder-decoder" if reads_source(model) else "no decoder"
        use = "clearstory translate or generate" if reads_source(model) else "clearstory fill-mask or embed"
        raise CannotDo(f"this model ({family_name(model)}) is {kind}, but chat needs a decoder; use {use}")


def make_chat(data: DataSplits[Any], model: Any, tokenizer: Tokenizer, settings: TaskSettings) -> Chat:
    """The task for a model and its tokenizer. Raises CannotDo for a model that cannot chat, and for one without a chat
    template.
    """
    check_decoder(model)
    if settings.truncate == "right":
        raise BadSetting("truncate is right, but only the first turns of a long conversation can be dropped; pass left")
    context = getattr(model, "context", None)
    return Chat(
        ChatFormat.of(tokenizer),
        context,
        settings.truncate == "left",
        settings.chat.assistant_only_loss,
        settings.label_smoothing,
    )


def chat_tokenizer(tokenizer: Tokenizer, settings: TaskSettings) -> tuple[Tokenizer, str | None]:
    """The tokenizer with the chat template of the settings, and a sentence on it. Raises CannotDo without one."""
    if settings.chat.chat_template is not None:
        return with_chat_template(tokenizer, settings.chat.chat_template)
    if not has_chat_template(tokenizer):
        raise CannotDo(
            "this model has no chat template, so it is not a chat model; pass --chat-template chatml, or a file with a "
            "template"
        )
    return tokenizer, None


CHAT = TaskSpec(
    read=lambda sources, settings, known: read_conversations(sources, settings),
    make=make_chat,
    known_labels=lambda model: None,
    next_command="clearstory chat {run}",
    tokenizer=chat_tokenizer,
)
