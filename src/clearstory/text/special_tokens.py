"""Framing: how an encoder reads a text or two, and one in which something is masked. Devlin et al. 2019, figure 2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clearstory.errors import CannotDo
from clearstory.text.tokenizers import Tokenizer


def build_inputs(tokenizer: Tokenizer, *texts: str | Sequence[int]) -> tuple[list[int], list[int]]:
    """The ids of one text or of two, given as text or as ids: [CLS] a [SEP] b [SEP].

    The second list says which text each token is of. Raises CannotDo for a tokenizer without these tokens.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> build_inputs(train_tokenizer("wordpiece:12", ["a b"]), "a", "b")
    ([2, 5, 3, 6, 3], [0, 0, 0, 1, 1])
    """
    first, last = cls_and_sep_ids(tokenizer)
    ids, token_type_ids = [first], [0]
    for number, text in enumerate(texts):
        own = tokenizer.encode(text) if isinstance(text, str) else list(text)
        ids += [*own, last]
        token_type_ids += [number] * (len(own) + 1)
    return ids, token_type_ids


def cls_and_sep_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """The token before all that is read, and the one behind each text. Raises CannotDo where there are none."""
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise CannotDo(
            f"this tokenizer ({tokenizer.kind}) has no [CLS] and [SEP], between which an encoder reads; "
            "tokenizer wordpiece:8192 makes one that has"
        )
    return tokenizer.cls_token_id, tokenizer.sep_token_id


def require_mask_token(tokenizer: Tokenizer) -> int:
    """The token that hides others. Raises CannotDo where there is none."""
    if tokenizer.mask_token_id is None:
        raise CannotDo(
            f"this tokenizer ({tokenizer.kind}) has no token that hides another; tokenizer wordpiece:8192 makes one "
            "that has [MASK]"
        )
    return tokenizer.mask_token_id


def encode_with_mask(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text in which [MASK] is spelt out, as this tokenizer writes it; nothing else is read as a command.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> encode_with_mask(train_tokenizer("wordpiece:12", ["a b"]), "a [MASK] b")
    [5, 4, 6]
    """
    mask = require_mask_token(tokenizer)
    *parts, last = (tokenizer.encode(part) for part in text.split(tokenizer.display_token(mask)))
    return [id for part in parts for id in (*part, mask)] + last


def continuation_mask(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """Which ids go on with the word that the token before them began, (V,); none but where pieces are marked so."""
    pieces = [tokenizer.display_token(id) for id in range(tokenizer.vocab)]
    return np.array([piece.startswith("##") for piece in pieces]) & ~tokenizer.special_tokens_mask & (tokenizer.kind == "wordpiece")
