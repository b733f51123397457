"""Both sides: how well an encoder tells the tokens of a text, masked as in training and one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clearstory.errors import BadInput
from clearstory.metrics import Floats, perplexity
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.base import inference_mode
from clearstory.evaluation.pseudo_likelihood import Frame, pseudo_nll, stretches
from clearstory.text.document import Document
from clearstory.text.special_tokens import cls_and_sep_ids, require_mask_token
from clearstory.text.token_dataset import TokenDataset, encode_documents
from clearstory.text.sentence_splitting import documents_by_sentence
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.exam import MaskedScore, score_masked
from clearstory.training.masking import Masking
from clearstory.training.objectives.mlm import MLM

LIMIT = 2000
"""Tokens told one by one, where nothing else is said: each costs a reading of its window."""

BOTH_SIDES = (
    "an encoder tells a token from both of its sides, so the nats of all tokens add up to no probability of the text; "
    "compare encoders in nats per masked token, or by pseudo-likelihood"
)
"""Why an encoder has no bits per byte."""


@dataclass(frozen=True, kw_only=True)
class EncoderEvaluation:
    """How well an encoder told the tokens of a text.

    Args:
        nats_per_token: of tokens masked as in training, 15 % of the text and always the same.
        tokens: how many were masked.
        next_sentence_accuracy: share of pairs told rightly; None for a model without that head, or for one document.
        pairs: how many pairs.
        pseudo_nats_per_token: of tokens masked one at a time (pseudo-log-likelihood, Salazar et al. 2020, eq. 1).
        pseudo_tokens: how many those were, from all over the text.
        documents: how many; none saw another.
        context: the longest window.
        reason: why there are no bits per byte.
        seconds: measuring took.
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
    reason: str = BOTH_SIDES

    @property
    def bits_per_byte(self) -> None:
        """None: `reason` says why."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "bits_per_byte": None,
            **asdict(self),
            "perplexity": perplexity(self.nats_per_token * self.tokens, self.tokens),
            "pseudo_log_likelihood": -self.pseudo_nats_per_token * self.pseudo_tokens,
            "pseudo_perplexity": perplexity(self.pseudo_nats_per_token * self.pseudo_tokens, self.pseudo_tokens),
        }


def evaluate_encoder(
    network: Encoder,
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    *,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EncoderEvaluation:
    """Masked nats of a text, or of about `limit` tokens of it; and the pseudo-likelihood of `limit`, or of LIMIT."""
    began = time.perf_counter()
    known = list(documents)
    rows = encode_documents(tokenizer, known)
    if not len(rows):
        raise BadInput("the text is too short: there is no token to tell; give more of it")
    with inference_mode(network):
        marks = masked_marks(network, tokenizer, known, rows, limit)
        places, nats = pseudo_token_nll(network, tokenizer, rows, spread(rows, limit or LIMIT), on_progress)
    return EncoderEvaluation(
        nats_per_token=marks.nats / marks.tokens,
        tokens=marks.tokens,
        next_sentence_accuracy=marks.accuracy,
        pairs=marks.pairs,
        pseudo_nats_per_token=float(nats.sum()) / max(1, len(places)),
        pseudo_tokens=len(places),
        documents=rows.documents,
        context=network.config.context,
        seconds=time.perf_counter() - began,
    )


def masked_marks(
    network: Encoder, tokenizer: Tokenizer, documents: Sequence[Document], rows: TokenDataset, limit: int | None
) -> MaskedScore:
    """As in training: over pairs where the model has a head for them and the text has them, else over windows."""
    masking, context = Masking.of(tokenizer), network.config.context
    if network.nsp_head is not None:
        sentences = encode_documents(tokenizer, documents_by_sentence(documents), multiple_documents=True, append_eos=False)
        try:
            return score_masked(network, MLM(masking, pairs=True), sentences, context, limit=limit)
        except BadInput:
            pass  # one document, or sentences that none follows
    return score_masked(network, MLM(masking), rows, context, limit=limit)


def spread(rows: TokenDataset, limit: int) -> list[int]:
    """Places of about `limit` tokens in runs of 16 from all over a text; of a shorter one, all."""
    if limit >= len(rows):
        return list(range(len(rows)))
    runs = np.linspace(0, len(rows) - 16, max(1, limit // 16)).astype(np.int64)
    return [int(place) for place in np.unique(runs[:, None] + np.arange(16))]


def pseudo_token_nll(
    network: Encoder,
    tokenizer: Tokenizer,
    rows: TokenDataset,
    places: Sequence[int],
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[int], Floats]:
    """Nats of the tokens at `places`, (N,), each told from all others of its window; special tokens are left out.

    Windows stand side by side in each document.
    """
    frame_of, wanted = Frame(*cls_and_sep_ids(tokenizer), require_mask_token(tokenizer)), np.asarray(places, np.int64)
    wanted = wanted[~tokenizer.special_tokens_mask[np.asarray(rows.ids[wanted])]]
    found: list[float] = []
    for window in stretches(rows, network.config.context - 2):
        begin, end = np.searchsorted(wanted, [window.begin, window.end])
        if begin == end:
            continue
        ids = [int(id) for id in rows.ids[window.begin : window.end]]
        found += pseudo_nll(network, ids, frame_of, (wanted[begin:end] - window.begin).tolist()).tolist()
        if on_progress is not None:
            on_progress(len(found), len(wanted))
    return wanted.tolist(), np.asarray(found, np.float64)
