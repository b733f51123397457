"""Sequences of BIO tags: valid transitions, and the most likely valid sequence.

B- begins an entity, I- continues one of its type: after O, after another type and at the start of a sentence there is
no I-. Taken word by word, the most likely tags need not keep to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.models.hmm.decoding import viterbi


@lru_cache(maxsize=16)
def bio_log_transitions(labels: tuple[str, ...]) -> tuple[Float[Tensor, "L"], Float[Tensor, "L L"]]:
    """0 for a tag that may start a sentence, (L,), and for one that may follow another, (L, L); −∞ for all others.

    A type without a B- is of another scheme: its I- may follow any tag.

    >>> start, follows = bio_log_transitions(("O", "B-PER", "I-PER"))
    >>> start.tolist(), follows[:, 2].tolist()
    ([0.0, 0.0, -inf], [-inf, 0.0, 0.0])
    """
    start, follows = torch.zeros(len(labels)), torch.zeros(len(labels), len(labels))
    for index, label in enumerate(labels):
        before = [each for each in ("B-" + label[2:], label) if each in labels]
        if label.startswith("I-") and len(before) == 2:
            start[index] = follows[:, index] = -torch.inf
            follows[[labels.index(each) for each in before], index] = 0.0
    return start, follows


def likeliest_bio_tags(log_probs: npt.NDArray[np.float64], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """The ids of the most likely valid sequence of tags, (words,), given log-probabilities of labels, (words, labels).

    The argmax of each word if this sequence is valid, otherwise the result of the Viterbi algorithm.

    >>> bold = np.log([[0.5, 0.1, 0.4], [0.3, 0.1, 0.6]])  # word by word O and I-PER
    >>> likeliest_bio_tags(bold, ("O", "B-PER", "I-PER")).tolist()  # O O: 0.5 · 0.3 > B-PER I-PER: 0.1 · 0.6
    [0, 0]
    """
    start, follows = bio_log_transitions(tuple(labels))
    best: npt.NDArray[np.int64] = log_probs.argmax(1)
    if not len(best) or float(start[best[0]] + follows[best[:-1], best[1:]].sum()) == 0.0:
        return best
    path, _ = viterbi(start.double()[None], follows.double()[None], torch.from_numpy(log_probs)[None])
    return path[0].numpy()
