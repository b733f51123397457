"""SentenceScorer: log-likelihoods of sentences under a causal model, pseudo-log-likelihoods under an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from clearstory.errors import CannotDo
from clearstory.evaluation.continuation_requests import ContinuationRequest
from clearstory.evaluation.continuations import ContinuationScorer
from clearstory.evaluation.pseudo_likelihood import MaskingTokens, pseudo_nll
from clearstory.models.base import LanguageModel, inference_mode, reads_source
from clearstory.models.capabilities import Capability, has_capability, require
from clearstory.models.prompts import find_start_token_id
from clearstory.models.transformer.encoder import Encoder
from clearstory.text.continuation_encoding import encode_continuation
from clearstory.text.encoding import encode_text
from clearstory.text.special_tokens import cls_and_sep_ids, require_mask_token
from clearstory.text.start_tokens import bos_or_eos_token_id
from clearstory.text.tokenizers import Tokenizer


@dataclass
class SentenceScorer:
    """Log-likelihoods of texts under a causal model, or pseudo-log-likelihoods under an encoder.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        on_progress: called with the number of texts done and of all.
    """

    model: Any
    tokenizer: Tokenizer
    on_progress: Callable[[int, int], None] | None = None
    scorer: ContinuationScorer | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.is_encoder = has_capability(self.model, Capability.BIDIRECTIONAL)
        self.start = bos_or_eos_token_id(self.tokenizer)
        if self.is_encoder:
            require(self.model, Capability.MLM_HEAD)
            return
        require(self.model, Capability.CAUSAL)
        if reads_source(self.model):
            raise CannotDo("probes are for texts without a source; use a decoder, a recurrent model or an encoder")
        config: Any = getattr(self.model, "config", None)
        network = cast(LanguageModel, self.model)
        self.scorer = ContinuationScorer(network, find_start_token_id(config, self.tokenizer))

    @property
    def measure(self) -> str:
        """The kind of the scores."""
        return "pseudo-likelihood" if self.is_encoder else "likelihood"

    def texts(self, texts: Sequence[str]) -> list[float]:
        """The log-likelihood of each whole text, in nats."""
        if self.is_encoder:
            return [self.pseudo_log_likelihood(text) for text in texts]
        return [each[0] for each in self.continuations([("", text) for text in texts])]

    def continuations(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation after its context, and whether it is the greedy one."""
        if self.scorer is None:
            raise CannotDo("an encoder has no likelihood of a continuation")
        found: dict[str, tuple[int, ...]] = {}

        def encode(text: str) -> Sequence[int]:
            if text not in found:
                found[text] = encode_text(self.tokenizer, text).ids
            return found[text]

        requests = []
        for context, continuation in pairs:
            first, rest = encode_continuation(context, continuation, encode, self.tokenizer.encode, self.start)
            requests.append(ContinuationRequest(tuple(first), tuple(rest)))
        return [(each.log_likelihood, each.is_greedy) for each in self.scorer.score(requests, self.on_progress)]

    def pseudo_log_likelihood(self, text: str) -> float:
        """Σ ln p of each token of a text given all others, in nats. Salazar et al. 2020, eq. 1."""
        special = MaskingTokens(*cls_and_sep_ids(self.tokenizer), require_mask_token(self.tokenizer))
        ids = self.tokenizer.encode(text)
        model = cast(Encoder, self.model)
        with inference_mode(model):
            return -float(pseudo_nll(model, ids, special, range(len(ids))).double().sum())
