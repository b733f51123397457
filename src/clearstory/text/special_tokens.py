"""Special tokens of encoders: [CLS] a [SEP] b [SEP], and the mask token. Devlin et al. 2019, figure 2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clearstory.errors import CannotDo
from clearstory.text.tokenizers import Tokenizer


def build_inputs(tokenizer: Tokenizer, *texts: str | Sequence[int]) -> tuple[list[int], list[int]]:
    """Ids and token type ids of one or two texts (strings or ids) as an encoder reads them: [CLS] a [SEP] b [SEP].

    The token type id is 0 in the first text and 1 in the second. Raises CannotDo if the tokenizer has no [CLS] and
    [SEP].

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
    """Ids of [CLS] and [SEP]. Raises CannotDo if the tokenizer has none."""
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise CannotDo(
            f"this tokenizer ({tokenizer.kind}) has no [CLS] and [SEP], which an encoder needs; train one with "
            "--tokenizer wordpiece:8192"
        )
    return tokenizer.cls_token_id, tokenizer.sep_token_id


def require_mask_token(tokenizer: Tokenizer) -> int:
    """Id of [MASK]. Raises CannotDo if the tokenizer has none."""
    if tokenizer.mask_token_id is None:
        raise CannotDo(
            f"this tokenizer ({tokenizer.kind}) has no mask token; train one with --tokenizer wordpiece:8192"
        )
    return tokenizer.mask_token_id


def continuation_mask(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """True for ids that continue the word of the token before (WordPiece's ##), shape (V,); all False for other
    tokenizers.
    """
    pieces = [tokenizer.display_token(id) for id in range(tokenizer.vocab)]
    return (
        np.array([piece.startswith("##") for piece in pieces])
        & ~tokenizer.special_tokens_mask
        & (tokenizer.kind == "wordpiece")
    )
