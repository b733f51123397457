"""View difference: one view of two sides A and B, each a model and a text, and the difference B − A.

 A: model, text ─► view ─┐
                         ├─► lens.views.difference ─► B − A, or why there is none
 B: model, text ─► view ─┘

The sides are computed one after the other, each under its model's lock, so that two pages that compare the same models
in opposite order cannot deadlock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from clearstory.errors import CannotDo, ClearstoryError, UnknownName
from clearstory.formats.folders import OpenedModel
from clearstory.lens.registry import VIEWS, load_view
from clearstory.lens.rendering.render import render
from clearstory.lens.views import Table, View
from clearstory.lens.views.difference import ROWS, difference
from clearstory.recipes.inference.loading import load_model_and_tokenizer
from clearstory.recipes.settings.inference import PromptSettings
from clearstory.recipes.settings.schema import INLINE_SECTION
from clearstory.studio.view_api import convert_settings, inspect_with_prompt


@dataclass(frozen=True, kw_only=True)
class ViewDifferenceRequest:
    """One view of two sides A and B.

    Args:
        model: A's model, by its path in the studio's folder.
        text: A's text.
        compare_model: B's model; A's if not given.
        compare_text: B's text; A's if not given.
        view: a name in `lens.registry.VIEWS`.
        format: "json" for both sides and their difference as data, or the format of a file with the difference.
        settings: settings of the view, for both sides.
        prompting: how the texts become prompts, for both sides.
    """

    model: str
    text: str = ""
    compare_model: str | None = None
    compare_text: str | None = None
    view: str = "next-token"
    format: Literal["json", "svg", "csv", "html"] = "json"
    settings: Mapping[str, Any] = field(default_factory=dict)
    prompting: PromptSettings = field(default_factory=PromptSettings, metadata=INLINE_SECTION)


def view_or_error(opened: OpenedModel, text: str, request: ViewDifferenceRequest) -> View | ClearstoryError:
    """The view of one side, with all rows if it lists the vocabulary; or the error that prevents it."""
    settings = convert_settings(load_view(request.view), request.settings)
    if VIEWS[request.view].lists_vocabulary:
        settings["top"] = load_model_and_tokenizer(opened)[0].vocab
    try:
        return inspect_with_prompt(opened, text, request.view, settings, request.prompting)
    except UnknownName:
        raise
    except ClearstoryError as error:
        return error


def view_difference(a: View | ClearstoryError, b: View | ClearstoryError, request: ViewDifferenceRequest) -> Any:
    """Both sides, B − A, and the reasons for missing ones as plain data; for a file format, B − A as a file.

    Raises A's error if both sides failed; for a file format, the error that prevents the difference.
    """
    top = request.settings.get("top")
    rows = convert_settings(load_view(request.view), {"top": top})["top"] if top is not None else ROWS
    errors = [each for each in (a, b) if isinstance(each, ClearstoryError)]
    if len(errors) == 2:
        raise errors[0]
    problems = {name: str(each) for name, each in (("a", a), ("b", b)) if isinstance(each, ClearstoryError)}
    difference_view = None
    if not isinstance(a, ClearstoryError) and not isinstance(b, ClearstoryError):
        try:
            difference_view = difference(a, b, top=rows)
        except CannotDo as error:
            errors.append(error)
            problems["difference"] = str(error)
    if request.format != "json":
        if difference_view is None:
            raise errors[0]
        return render(difference_view, request.format)
    sides = {name: None if isinstance(each, ClearstoryError) else first_rows(each, request, rows).to_json()
            for name, each in (("a", a), ("b", b))}  # fmt: skip
    return {**sides, "difference": None if difference_view is None else difference_view.to_json(), "problems": problems}


def first_rows(view: View, request: ViewDifferenceRequest, rows: int) -> View:
    """The first rows of a view that lists the vocabulary; any other view unchanged."""
    return (
        replace(view, rows=view.rows[:rows])
        if VIEWS[request.view].lists_vocabulary and isinstance(view, Table)
        else view
    )
