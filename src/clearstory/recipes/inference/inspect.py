"""Inspect: see what happens between a text and a prediction."""

from __future__ import annotations

import inspect as signatures
from pathlib import Path
from typing import Any, Literal, cast

from clearstory.errors import BadSetting, UnknownName, nearest
from clearstory.lens.views.difference import ROWS, difference
from clearstory.lens.rendering.render import WRITERS, save
from clearstory.lens.registry import VIEWS, check_able, view_of
from clearstory.lens.views import View
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer
from clearstory.recipes.inference.across_checkpoints import over_checkpoints
from clearstory.recipes.written import writer


def inspect(
    model: str | Path | ModelWithTokenizer,
    text: str,
    view: str = "next-token",
    out: str | Path | None = None,
    *,
    device: str | None = None,
    across_checkpoints: Literal["checkpoints"] | None = None,
    compare_model: str | Path | ModelWithTokenizer | None = None,
    compare_text: str | None = None,
    **settings: Any,
) -> View:
    """A view of a model reading a text; written to `out` (.html, .svg, .csv or .json) where that is given.

    `settings` are the view's own, such as `top` and `temperature` of "next". `over` checkpoints: the view at
    each checkpoint of a run, one after another. `compare_model` another model, or `compare_text`, or both: how much more of
    it those have, B − A, see `lens.difference`; what is not given is as on this side.

    Raises UnknownName for a view or setting that does not exist, CannotDo for a view that this kind of model cannot
    show, before anything is computed, and for two views of which a difference means nothing.

    >>> import clearstory
    >>> clearstory.inspect("runs/book/model", "the king of", top=5).rows  # doctest: +SKIP
    """
    function = view_of(view)
    known = [name for name, each in signatures.signature(function).parameters.items() if each.kind is each.KEYWORD_ONLY]
    for name in settings:
        if name not in known:
            raise UnknownName(f"the view '{view}' has no setting called '{name}'; {nearest(name, known)}")
    if out is not None and Path(out).suffix.lower() not in WRITERS:
        raise UnknownName(f"a view is not written to '{Path(out).name}'; {nearest(Path(out).suffix, WRITERS)}")

    compared = compare_model is not None or compare_text is not None
    if compared and across_checkpoints is not None:
        raise BadSetting(f"over is '{across_checkpoints}' and two sides are compared; leave one of the two out")

    def look(model: str | Path | ModelWithTokenizer, text: str = text) -> View:
        network, tokenizer = load_model_and_tokenizer(model, device)
        check_able(view, network)
        if VIEWS[view].writes:
            write = writer(network, tokenizer, text, settings.get("truncate"))
            return function(network, tokenizer, text, write, **settings)
        if compared and VIEWS[view].listed:
            return function(network, tokenizer, text, **{**settings, "top": network.vocab})
        return function(network, tokenizer, text, **settings)

    if across_checkpoints is not None and not isinstance(model, str | Path):
        raise BadSetting("a model that is open already has no checkpoints; give the folder of its run")
    if compared:
        one, other = look(model), look(model if compare_model is None else compare_model, compare_text or text)
        seen = difference(one, other, top=settings.get("top", ROWS))
    else:
        seen = look(model) if across_checkpoints is None else over_checkpoints(cast("str | Path", model), look, view)
    if out is not None:
        save(seen, out)
    return seen
