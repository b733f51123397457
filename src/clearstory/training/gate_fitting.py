"""Fits the gate of a mixture on held-out text with AdamW."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clearstory.evaluation.windows import ShiftedDocuments
from clearstory.models.base import TokenSequences
from clearstory.models.mixture.gate import Gate
from clearstory.models.mixture.model import Mixture
from clearstory.training.optimizers import AdamW

HELD_OUT_SHARE = 0.05
"""Fraction of the training text that is held out from the experts until the gate is fitted."""

HELD_OUT_TOKENS = 2**14
"""Maximum number of held-out tokens: the gate has a few hundred weights."""

PIECE = 2**11
"""Longer documents are split into parallel pieces of this many tokens."""

BATCH_DOCUMENTS, CHUNK_TOKENS = 8, 2**8
"""Number of documents processed in parallel, and tokens of each per step."""

LEARNING_RATE = 0.02
STEPS = 400
BATCH_TOKENS = 2048


@dataclass(frozen=True, eq=False)
class DocumentPart:
    """Some documents of a dataset, as a TokenSequences."""

    ids: Any
    starts: Any
    byte_lengths: Any = None
    document_bytes: Any = None

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)


def split_held_out(dataset: TokenSequences, seed: int) -> tuple[DocumentPart, DocumentPart]:
    """The training text of the experts and the training text of the gate, which are disjoint.

    Of twenty documents or more, some are held out at random; of fewer, the end of the text, in pieces.
    """
    ids, starts = np.asarray(dataset.ids), np.asarray(dataset.starts, np.int64)
    wanted = min(HELD_OUT_TOKENS, max(1, int(HELD_OUT_SHARE * len(ids))))
    sizes = np.diff(starts)
    if len(sizes) >= 20:
        order = np.random.default_rng([seed, len(ids)]).permutation(len(sizes))
        before = np.cumsum(sizes[order]) - sizes[order]
        held = np.zeros(len(sizes), dtype=bool)
        held[order[(before < wanted) & (sizes[order] <= len(ids) // 2)]] = True
        return take_documents(ids, starts, ~held), take_documents(ids, starts, held)
    cut = len(ids) - wanted
    before = np.concatenate([starts[starts < cut], [cut]])
    pieces = np.unique(np.concatenate([np.arange(0, wanted, PIECE), starts[starts > cut] - cut]))
    return DocumentPart(ids[:cut], before), DocumentPart(ids[cut:], pieces)


def take_documents(ids: Any, starts: Any, chosen: Any) -> DocumentPart:
    """The chosen documents, in order."""
    numbers = np.flatnonzero(chosen)
    parts = [ids[starts[i] : starts[i + 1]] for i in numbers]
    lengths = [len(part) for part in parts]
    return DocumentPart(np.concatenate(parts) if parts else ids[:0], np.concatenate([[0], np.cumsum(lengths)]))


@torch.no_grad()
def fit_gate(
    model: Mixture, held_out: DocumentPart, start_token_id: int | None, limit: int | None = None, steps: int = STEPS
) -> int:
    """Fit the gate for `steps` steps on held-out documents, or on about `limit` tokens of them; returns their
    number.
    """
    model.eval()
    model.compute_dtype = None
    examples = gate_examples(model, held_out, start_token_id, limit)
    if not examples:
        return 0
    features, log_probs, possible = (torch.cat(parts) for parts in zip(*examples, strict=True))
    maximise_likelihood(model.gate, features, log_probs, possible, steps)
    return len(features)


def gate_examples(
    model: Mixture, held_out: DocumentPart, start_token_id: int | None, limit: int | None
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For the tokens of each piece: features, log-probabilities under each component, and a mask of the available
    ones.
    """
    documents = ShiftedDocuments(held_out, start_token_id)
    sizes, left = {}, len(held_out) if limit is None else limit
    for document in range(len(documents)):
        if size := min(documents.n_targets(document), left):
            sizes[document], left = size, left - size
    # Those of similar lengths side by side, padded: what follows a document is read and not used.
    order = sorted(sizes, key=lambda document: -sizes[document])
    examples = []
    for group in (order[at : at + BATCH_DOCUMENTS] for at in range(0, len(order), BATCH_DOCUMENTS)):
        longest = sizes[group[0]]
        pairs = [documents.inputs_and_targets(each, 0, sizes[each]) for each in group]
        padded = [[row + [0] * (longest - len(row)) for row in side] for side in zip(*pairs, strict=True)]
        inputs, targets = (torch.tensor(side, device=model.device) for side in padded)
        state = model.init_state(len(group))
        for start in range(0, longest, CHUNK_TOKENS):
            part = slice(start, start + CHUNK_TOKENS)
            log_probs, features, possible, state = model.component_log_probs(inputs[:, part], targets[:, part], state)
            for row, document in enumerate(group):
                kept = slice(0, max(0, sizes[document] - start))
                examples.append((features[row, kept], log_probs[row, kept], possible[row, kept]))
    return examples


def maximise_likelihood(
    gate: Gate,
    features: Float[Tensor, "N F"],
    log_probs: Float[Tensor, "N E"],
    possible: Bool[Tensor, "N E"],
    steps: int = STEPS,
) -> None:
    """Fit the gate with AdamW on random tokens, always from the same initial weights, so that it depends only on the
    data.
    """
    gate.reset()
    gate.shift.copy_(features.mean(0))
    gate.scale.copy_(features.std(0, unbiased=False).clamp(min=1e-2))
    optimizer = AdamW([{"params": list(gate.parameters()), "weight_decay": 0.001}], LEARNING_RATE, (0.9, 0.99), 1e-8)
    features, log_probs = features.to(gate.shift.dtype), log_probs.to(gate.shift.dtype)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        rows = torch.randint(len(features), (min(BATCH_TOKENS, len(features)),), generator=generator)
        rows = rows.to(features.device)
        with torch.enable_grad():
            mixed = torch.logsumexp(gate(features[rows], possible[rows]) + log_probs[rows], -1)
            (-mixed.mean()).backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.groups[0]["lr"] = LEARNING_RATE * (1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
