"""Evaluation of an encoder on a text: masked tokens as in training, next sentences, and pseudo-likelihood."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clearstory.errors import BadInput
from clearstory.evaluation.masked import MaskedScore
from clearstory.evaluation.pseudo_likelihood import pseudo_token_nll, spread_positions
from clearstory.metrics import perplexity
from clearstory.models.base import inference_mode
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.transformer.encoder import Encoder
from clearstory.recipes.notebook_html import html_table
from clearstory.text.document import Document
from clearstory.text.sentence_splitting import documents_by_sentence
from clearstory.text.token_dataset import TokenDataset, encode_documents
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.masked_batches import TokenMasking
from clearstory.training.objectives.mlm import MLM, NO_BITS_PER_BYTE

PSEUDO_TOKENS = 2000
"""Tokens scored by pseudo-likelihood where no limit is given: each costs a forward pass over its window."""


@dataclass(frozen=True, kw_only=True)
class EncoderEvaluation:
    """How well an encoder predicts the tokens of a text.

    Args:
        nats_per_token: mean loss of masked tokens: 15 % of the text, the same ones every time.
        tokens: number of masked tokens.
        next_sentence_accuracy: from 0 to 1; None for a model without that head, or for one document.
        pairs: number of pairs of texts.
        pseudo_nats_per_token: mean loss of tokens masked one at a time (pseudo-log-likelihood, Salazar et al. 2020,
            eq. 1).
        pseudo_tokens: number of these, from all over the text.
        documents: number of documents, each predicted on its own.
        context: the longest window in tokens.
        seconds: time of the evaluation.
        reason: why there are no bits per byte.
        note: what was skipped or replaced in the files; None where nothing was.
    """

    nats_per_token: float
    tokens: int
    next_sentence_accuracy: float | None
    pairs: int
    pseudo_nats_per_token: float
    pseudo_tokens: int
    documents: int
    context: int
    seconds: float
    reason: str = NO_BITS_PER_BYTE
    note: str | None = None

    @property
    def bits_per_byte(self) -> None:
        """None; see `reason`."""

    def _repr_html_(self) -> str:
        """The main values as a table, for notebooks."""
        names = ("nats_per_token", "tokens", "next_sentence_accuracy", "pseudo_nats_per_token", "documents", "reason")
        rows = ((name.replace("_", " "), getattr(self, name)) for name in names)
        return html_table((name, value) for name, value in rows if value is not None)

    def to_json(self) -> dict[str, Any]:
        """All values as a dictionary for JSON."""
        return {
            "bits_per_byte": None,
            **asdict(self),
            "perplexity": perplexity(self.nats_per_token * self.tokens, self.tokens),
            "pseudo_log_likelihood": -self.pseudo_nats_per_token * self.pseudo_tokens,
            "pseudo_perplexity": perplexity(self.pseudo_nats_per_token * self.pseudo_tokens, self.pseudo_tokens),
        }


def evaluate_encoder(
    model: Encoder,
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    *,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EncoderEvaluation:
    """Masked loss on a text, or on about `limit` tokens; and pseudo-likelihood of `limit` tokens, or PSEUDO_TOKENS."""
    started = time.perf_counter()
    documents = list(documents)
    dataset = encode_documents(tokenizer, documents)
    if not dataset.text_bytes:
        raise BadInput("the text is too short: it has no token to predict; give more text")
    with inference_mode(model):
        masked = score_masked_text(model, tokenizer, documents, dataset, limit)
        positions = spread_positions(dataset, limit or PSEUDO_TOKENS)
        scored, nats = pseudo_token_nll(model, tokenizer, dataset, positions, on_progress)
    return EncoderEvaluation(
        nats_per_token=masked.nats / masked.tokens,
        tokens=masked.tokens,
        next_sentence_accuracy=masked.accuracy,
        pairs=masked.pairs,
        pseudo_nats_per_token=float(nats.sum()) / max(1, len(scored)),
        pseudo_tokens=len(scored),
        documents=dataset.documents,
        context=model.config.context,
        seconds=time.perf_counter() - started,
    )


def score_masked_text(
    model: Encoder, tokenizer: Tokenizer, documents: Sequence[Document], dataset: TokenDataset, limit: int | None
) -> MaskedScore:
    """Masked loss as in training: over pairs of texts where the model has a head for them and the text has them."""
    masking, context = TokenMasking.from_tokenizer(tokenizer), model.config.context
    if has_capability(model, Capability.NSP_HEAD):
        sentences = encode_documents(tokenizer, documents_by_sentence(documents), append_eos=False)
        try:
            return MLM(masking, next_sentence=True).score(model, sentences, context, limit=limit)
        except BadInput:
            pass  # one document, or documents of one sentence
    return MLM(masking).score(model, dataset, context, limit=limit)
