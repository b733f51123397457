"""Tiny models of every kind: a family is in all laws by a line in MODELS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.capabilities import Capability
from clearstory.models.hmm.config import HMMConfig
from clearstory.models.mixture.config import MixtureConfig
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.models.recurrent.seq2seq_config import RecurrentSeq2SeqConfig
from clearstory.models.transformer.presets import CLEAR, GPT2, MARIAN

VOCAB = 23

TINY_GPT2 = replace(
    GPT2, vocab=VOCAB, context=24, width=16, layers=2, heads=2, kv_heads=2, head_dim=8, intermediate_size=32
)
TINY_CLEAR = replace(
    CLEAR, vocab=VOCAB, context=24, width=16, layers=2, heads=4, kv_heads=4, head_dim=4, intermediate_size=24
)
TINY_SSRU = replace(
    MARIAN, vocab=VOCAB, context=24, width=16, layers=2, decoder_layers=2, heads=2, kv_heads=2, head_dim=8,
    intermediate_size=24, decoder_start_token_id=0, decoder_autoregression="ssru",
)  # fmt: skip
TINY_RECALL = replace(TINY_CLEAR, recall=(2, 4), recall_rows=50)

TINY_RECALL_SUBWORDS = replace(TINY_RECALL, recall_dim=3)

TINY_LSTM = RecurrentConfig(vocab=VOCAB, width=6, hidden_size=10, layers=2)

TINY_SEQ2SEQ = RecurrentSeq2SeqConfig(vocab=VOCAB, width=6, hidden_size=8)

RECURRENT_WRITERS = {
    "additive": TINY_SEQ2SEQ,
    "additive-deep": replace(TINY_SEQ2SEQ, cell="gru", layers=2, bidirectional=False, tie_embeddings=False),
    "dot": replace(TINY_SEQ2SEQ, layers=2, bidirectional=False, attention="dot"),
    "sutskever": replace(TINY_SEQ2SEQ, layers=2, bidirectional=False, reverse_source=True, attention="none"),
    "cho": replace(TINY_SEQ2SEQ, cell="gru", bidirectional=False, attention="none", feed_summary=True),
}

TINY_HMM = HMMConfig(vocab=VOCAB, states=12)


def shaken(config: Any, seed: int = 1) -> torch.nn.Module:
    """A model in float64 with noise on every parameter: biases at zero would hide that they are missing."""
    model = build(config, seed=seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * 0.3)
    return model


def counted(**settings: Any) -> torch.nn.Module:
    """An n-gram model with these settings, fitted as in `fitted`."""
    return fitted(NGramConfig(vocab=VOCAB, **settings))


def fitted(config: Any) -> torch.nn.Module:
    """A count model in float64, fitted to documents in which most tokens follow from the one before."""
    model: Any = build(config).double().eval()
    random, ids = Random(1), [0]
    # Enough of them that every pair occurs and no two tokens tie for the most likely.
    while len(ids) < 20_000:
        likely = [(7 * ids[-1] + step) % VOCAB for step in (1, 2, 5)]
        ids += random.choices([*likely, random.randrange(VOCAB)], [5, 3, 2, 4])
    starts = np.array([0, 250, 250, len(ids)])
    rounds = model.fit(SimpleNamespace(ids=np.array(ids, np.uint16), starts=starts, byte_lengths=np.ones(VOCAB)))
    assert len(list(rounds)) == model.rounds
    return model


def mixed(cache: int, **configs: Any) -> torch.nn.Module:
    """A mixture in float64 of models with these configs, its n-gram models fitted as in `fitted`."""
    model: Any = shaken(
        MixtureConfig(vocab=VOCAB, experts=tuple(configs), cache=cache, configs=tuple(configs.values()))
    )
    for at, each in enumerate(model.experts):
        if each.config.family == "ngram":
            model.experts[at] = fitted(each.config)
    return model


TINY_NGRAM = NGramConfig(vocab=VOCAB, order=4, bos_token_id=2)


class GivenSource(nn.Module):
    """An encoder-decoder that has been given one source for every sequence: a language model like any other."""

    def __init__(self, model: Any, source: list[int]) -> None:
        super().__init__()
        self.model, self.source = model, source
        self.config, self.vocab, self.context = model.config, model.vocab, model.context
        self.capabilities = frozenset({Capability.CAUSAL})

    def init_state(self, batch_size: int = 1) -> Any:
        return self.model.init_state(batch_size, TokenBatch.from_sequences([self.source] * batch_size))

    def forward(self, tokens: TokenBatch, state: Any = None) -> Any:
        source = TokenBatch.from_sequences([self.source] * len(tokens.ids)) if state is None else None
        return self.model.forward(tokens, state, source)

    def logits(self, hidden: torch.Tensor) -> Any:
        return self.model.logits(hidden)

    def token_nll(self, tokens: TokenBatch, targets: torch.Tensor, state: Any = None) -> Any:
        source = TokenBatch.from_sequences([self.source] * len(tokens.ids)) if state is None else None
        return self.model.token_nll(tokens, targets, state, source)


MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: shaken(TINY_GPT2),
    "clear": lambda: shaken(TINY_CLEAR),
    "grouped": lambda: shaken(replace(TINY_CLEAR, kv_heads=2)),
    "windowed": lambda: shaken(replace(TINY_CLEAR, sliding_window=5)),
    "recalling": lambda: shaken(TINY_RECALL),
    "recalling-subwords": lambda: shaken(TINY_RECALL_SUBWORDS),
    "placeless": lambda: shaken(replace(TINY_GPT2, positions="none", tie_embeddings=False)),
    "rnn": lambda: shaken(replace(TINY_LSTM, cell="rnn")),
    "gru": lambda: shaken(replace(TINY_LSTM, cell="gru", tie_embeddings=False)),
    "lstm": lambda: shaken(TINY_LSTM),
    "additive": lambda: GivenSource(shaken(RECURRENT_WRITERS["additive"]), [5, 6, 7, 8]),
    "cho": lambda: GivenSource(shaken(RECURRENT_WRITERS["cho"]), [5, 6]),
    "ssru": lambda: GivenSource(shaken(TINY_SSRU), [5, 6, 7]),
    "hmm": lambda: shaken(TINY_HMM),
    "blocks": lambda: shaken(replace(TINY_HMM, learn="gradient", blocks=4)),
    "tagger": lambda: shaken(HMMConfig(vocab=VOCAB, states=5, learn="tags", order=3, tags=tuple("ABCD"), suffixes=2)),
    "adaptive": lambda: shaken(replace(TINY_LSTM, cutoffs=(5, 12))),
    "ngram": lambda: counted(order=4, bos_token_id=2),
    "pruned": lambda: counted(order=3, prune=(0, 0, 1)),
    "katz": lambda: counted(order=3, smoothing="katz", counts=False),
    "mixture": lambda: mixed(16, clear=replace(TINY_CLEAR, context=9), ngram=TINY_NGRAM),
    "uncached": lambda: mixed(0, lstm=TINY_LSTM, gpt2=TINY_GPT2),
    "laplace": lambda: counted(order=3, smoothing="laplace", bos_token_id=2),
}
