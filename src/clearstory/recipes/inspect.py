"""Inspect: see what happens between a text and a prediction."""

from __future__ import annotations

import inspect as signatures
from pathlib import Path
from typing import Any

from clearstory.errors import UnknownName, nearest
from clearstory.lens.draw import WRITERS, save
from clearstory.lens.table import check_able, view_of
from clearstory.lens.views import View
from clearstory.recipes.opening import Ready, ready


def inspect(
    model: str | Path | Ready,
    text: str,
    view: str = "next",
    out: str | Path | None = None,
    *,
    device: str | None = None,
    **settings: Any,
) -> View:
    """A view of a model reading a text; written to `out` (.html, .svg, .csv or .json) where that is given.

    `settings` are the view's own, such as `top` and `temperature` of "next". Raises UnknownName for a view or setting
    that does not exist, CannotDo for a view that this kind of model cannot show, before anything is computed.

    >>> import clearstory
    >>> clearstory.inspect("runs/book/model", "the king of", top=5).rows  # doctest: +SKIP
    """
    function = view_of(view)
    known = [name for name in signatures.signature(function).parameters if name not in ("model", "tokenizer", "text")]
    for name in settings:
        if name not in known:
            raise UnknownName(f"the view '{view}' has no setting called '{name}'; {nearest(name, known)}")
    if out is not None and Path(out).suffix.lower() not in WRITERS:
        raise UnknownName(f"a view is not written to '{Path(out).name}'; {nearest(Path(out).suffix, WRITERS)}")
    network, tokenizer = ready(model, device)
    check_able(view, network)
    seen = function(network, tokenizer, text, **settings)
    if out is not None:
        save(seen, out)
    return seen
