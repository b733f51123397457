"""Sources: what a view asks of a model that reads one text and writes another, a source and its target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clearstory.errors import BadInput, CannotDo, ContextOverflow
from clearstory.models.base import reads_source
from clearstory.models.prompts import Truncation, find_start_token_id, prepare_source
from clearstory.text.sentinels import SentinelTokenizer


@dataclass(frozen=True)
class SourceTarget:
    """A source and what is written from it.

    Args:
        source: its ids, its end included.
        begin: the token that writing begins after.
        ids: of the target.
        places: the characters start:stop of the target that each was made from.
    """

    source: list[int]
    begin: int
    ids: list[int]
    places: list[tuple[int, int]]


def encode_source_target(
    model: Any, tokenizer: Any, source: str, target: str | None, truncate: Truncation | None = None
) -> SourceTarget | None:
    """Both sides as the model was taught them; None for a model that writes on from a text.

    Raises CannotDo for a target and a model that reads no source; BadInput for a source without a word; ContextOverflow
    for sides that do not fit.
    """
    if not reads_source(model):
        if target is not None:
            raise CannotDo(
                "this model writes on from a text and reads no source, so there is no target; leave --target out"
            )
        return None
    if not source:
        raise BadInput("this model rewrites a source, and there is none; give it the text to be rewritten")
    begin = find_start_token_id(model.config, tokenizer)
    if begin is None:
        raise BadInput("neither this model nor its tokenizer says after which token writing begins; set model.decoder_start_token_id")
    gaps = SentinelTokenizer(tokenizer)
    ids, places = gaps.encode_with_offsets(target or "")
    if model.context is not None and len(ids) >= model.context:
        raise ContextOverflow(
            f"the target has {len(ids):,} tokens and the model's context holds {model.context - 1:,} after the one "
            "that writing begins after; shorten it"
        )
    return SourceTarget(prepare_source(model, gaps.source(source), truncate), begin, ids, places)
