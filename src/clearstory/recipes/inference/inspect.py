"""Inspect: computes a view of a model reading a text, by itself, compared with another, or across checkpoints."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Unpack

from clearstory.errors import BadInput, BadSetting, UnknownName, nearest
from clearstory.generation.beam_search import Candidate, beam_search
from clearstory.generation.engine import generate
from clearstory.generation.prompt_format import PromptFormat
from clearstory.generation.settings import sampling_of
from clearstory.lens.registry import VIEWS, check_supported, load_choice, load_comparison, load_view
from clearstory.lens.rendering.render import format_of, save_view
from clearstory.lens.views import Curve, HighlightedText, Line, Panel, Report, Table, View
from clearstory.lens.views.difference import ROWS, difference
from clearstory.lens.views.report import panels_of
from clearstory.models.base import LanguageModel
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.prompts import PromptOptions
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_generator
from clearstory.recipes.settings.arguments import describe_type, matches_type
from clearstory.recipes.settings.keywords import ViewKeywords
from clearstory.recipes.settings.schema import quote_value
from clearstory.text.decoded_text import decode_with_spans
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.weight_checkpoints import list_saved_models, thin_steps

GeneratedTokens = tuple[Sequence[int], Sequence[Candidate]]
"""Ids of generated tokens, and every candidate that a beam search considered."""


def inspect(
    model: str | Path | ModelWithTokenizer,
    text: str,
    view: str = "next-token",
    out: str | Path | None = None,
    *,
    device: str | None = None,
    across_checkpoints: bool = False,
    compare_model: str | Path | ModelWithTokenizer | None = None,
    compare_text: str | None = None,
    raw: bool = False,
    system: str | None = None,
    special_tokens: bool = True,
    token_ids: Sequence[int] | None = None,
    **settings: Unpack[ViewKeywords],
) -> View:
    """Compute a view of a model on a text, and write it to `out` (.html, .svg, .csv or .json) if given.

    Args:
        model: a model folder, run folder or checkpoint, or a loaded model.
        text: input text.
        view: name of the view; see `clearstory inspect --help`.
        out: file to write the view to.
        device: cpu, cuda, mps or auto.
        across_checkpoints: compute the view at each checkpoint of the run; `model` is then the folder of a run.
        compare_model: second model. The view returned is the second minus the first; see `lens.views.difference`.
        compare_text: second text, with the same effect.
        raw: use the text as plain text, not as a message in the model's chat template.
        system: system message in the model's chat template.
        special_tokens: add the special tokens that the model's tokenizer adds around a text.
        token_ids: token ids that the model reads as they are, with an empty text, such as those that a server returns.
        settings: settings of the view, such as `top` and `temperature` of "next-token".

    Raises UnknownName for an unknown view or setting, CannotDo for a view that this family of models does not support,
    and if the difference of the two views is not meaningful.

    >>> import clearstory
    >>> clearstory.inspect("runs/book/model", "the king of", top=5).rows  # doctest: +SKIP
    """
    prompt = PromptOptions(
        raw=raw, system=system, add_special_tokens=special_tokens, ids=None if token_ids is None else tuple(token_ids)
    )
    if token_ids is not None:
        check_ids_alone(text, replace(prompt, ids=None))
    check_view_settings(load_view(view), view, settings, prompt)
    if out is not None:
        format_of(out)  # before anything is computed
    is_comparison = compare_model is not None or compare_text is not None
    if is_comparison and token_ids is not None:
        raise BadSetting("token_ids are of one model and one conversation; leave compare_model and compare_text out")
    if is_comparison and across_checkpoints:
        raise BadSetting(
            "across_checkpoints is set together with compare_model or compare_text; leave out one of the two"
        )

    whole_vocabulary = is_comparison or across_checkpoints
    compute_view = partial(
        view_of_text, view, device=device, prompt=prompt, whole_vocabulary=whole_vocabulary, settings=settings
    )
    if is_comparison:
        sides = (model, text), (model if compare_model is None else compare_model, compare_text or text)
        computed = compare_views(view, *sides, device=device, prompt=prompt, settings=settings)
    elif across_checkpoints:
        if not isinstance(model, str | Path):
            raise BadSetting("a loaded model has no checkpoints; pass the folder of its run")
        computed = view_across_checkpoints(model, partial(compute_view, text=text), view, rows_shown(view, settings))
    else:
        computed = compute_view(model, text)
    if out is not None:
        save_view(computed, out)
    return computed


def check_ids_alone(text: str, prompt: PromptOptions) -> None:
    """Raise BadSetting for ids beside a text, or beside options of how a text becomes ids."""
    if text or prompt != PromptOptions():
        raise BadSetting("token_ids are read as they are; leave the text, raw, system and special_tokens out")


def view_of_text(
    view: str,
    model: str | Path | ModelWithTokenizer,
    text: str,
    *,
    device: str | None,
    prompt: PromptOptions,
    whole_vocabulary: bool,
    settings: Mapping[str, Any],
) -> View:
    """The view of one model reading one text; with `whole_vocabulary`, a list of tokens has all of them."""
    function = load_view(view)
    network, tokenizer, config = load_generator(model, device)
    check_supported(view, network)
    if prompt.ids is not None:
        text, _ = decode_with_spans(tokenizer, prompt.ids)
    if reads_prompt(function):
        settings = {**settings, "prompt": prompt}
    if VIEWS[view].needs_generator:
        prompt_format = PromptFormat.of(
            network, tokenizer, settings.get("truncate"), generation_config=config, options=prompt
        )
        generator = token_generator(network, tokenizer, text, prompt_format, config)
        return function(network, tokenizer, text, generator, **settings)
    if whole_vocabulary and VIEWS[view].lists_vocabulary:
        return function(network, tokenizer, text, **{**settings, "top": network.vocab})
    return function(network, tokenizer, text, **settings)


Side = tuple[str | Path | ModelWithTokenizer, str]
"""A model and the text that it reads."""


def compare_views(
    view: str, first: Side, second: Side, *, device: str | None, prompt: PromptOptions, settings: Mapping[str, Any]
) -> View:
    """The view of the second side minus that of the first, or the view's own comparison of two models on one text; what
    the view chooses itself is chosen on the first side.
    """
    model, text = open_side(first, device)
    other = (model, second[1]) if second[0] is first[0] else open_side(second, device)
    check_supported(view, model.model)
    check_supported(view, other[0].model)
    comparison = load_comparison(view)
    if comparison is not None and other[0] is not model and other[1] == text:
        return comparison(
            model.model, model.tokenizer, text, other[0].model, other[0].tokenizer, **settings, prompt=prompt
        )
    choice, given = load_choice(view), dict(settings)
    if choice is not None:
        read = {**given, PROMPT_PARAMETER: prompt} if reads_prompt(load_view(view)) else given
        given = {**given, **choice(model.model, model.tokenizer, text, **read)}
    views = [
        view_of_text(view, *side, device=None, prompt=prompt, whole_vocabulary=True, settings=given)
        for side in ((model, text), other)
    ]
    return difference(views[0], views[1], top=settings.get("top", ROWS))


def open_side(side: Side, device: str | None) -> tuple[ModelWithTokenizer, str]:
    """The opened model of a side, on the device, and its text."""
    model, text = side
    if isinstance(model, str | Path):
        from clearstory.formats.folders import open_model

        model = open_model(model)
    load_generator(model, device)  # moves it
    return model, text


PROMPT_PARAMETER = "prompt"
"""The parameter of a view for the encoding of its text as a prompt; views of words or of sentences do not have it."""


def reads_prompt(function: Callable[..., View]) -> bool:
    """Whether a view reads its text as `generate` reads a prompt."""
    return PROMPT_PARAMETER in signature(function).parameters


def check_view_settings(
    function: Callable[..., View], view: str, settings: Mapping[str, object], prompt: PromptOptions
) -> None:
    """Raise UnknownName for a setting that the view does not have, BadSetting for a value of a wrong type, and
    for prompt options where it reads no prompt.
    """
    parameters, hints = signature(function).parameters, typing.get_type_hints(ViewKeywords)
    known = [name for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY and name != PROMPT_PARAMETER]
    for name, value in settings.items():
        if name not in known:
            raise UnknownName(f"the view '{view}' has no setting called '{name}'; {nearest(name, known)}")
        is_default = value is None and parameters[name].default is None
        if not is_default and not matches_type(value, hints.get(name, Any)):
            raise BadSetting(f"{name} is {quote_value(value)}; it must be {describe_type(hints[name])}")
    if prompt != PromptOptions() and not reads_prompt(function):
        raise BadSetting(
            f"the view '{view}' uses words or sentences, not a prompt; "
            "leave raw, system, special_tokens and token_ids out"
        )


def token_generator(
    model: LanguageModel, tokenizer: Tokenizer, text: str, prompt_format: PromptFormat, config: GenerationConfig
) -> Callable[..., GeneratedTokens]:
    """A function that generates tokens after `text`; its keyword arguments are fields of Sampling, and fields that are
    not given are those of the model's generation config.
    """

    def generate_tokens(**settings: Any) -> GeneratedTokens:
        sampling = sampling_of(config, settings)
        ids, source = prompt_format.encode(tokenizer, text)
        if sampling.beam == 1:
            tokens = generate(model, ids, sampling, source=source, **prompt_format.decoding_options)
            return tuple(token.id for token in tokens), ()
        candidates: list[Candidate] = []
        best = beam_search(
            model, ids, sampling, source=source, on_candidate=candidates.append, **prompt_format.search_options
        )[0]
        return best.ids, tuple(candidates)

    return generate_tokens


MAX_CHECKPOINTS = 12
"""Checkpoints that are shown; of more, this many at nearly equal ratios of steps, the first and the last included."""

MAX_LINES = 6
"""Rows of a table that are drawn as lines of the curve."""


def rows_shown(view: str, settings: Mapping[str, Any]) -> int | None:
    """How many rows of a list of the whole vocabulary are shown; None for other views, which are shown as they are."""
    if not VIEWS[view].lists_vocabulary:
        return None
    top: int = settings.get("top", signature(load_view(view)).parameters["top"].default)
    return top


def view_across_checkpoints(
    run: str | Path, compute_view: Callable[[Path], View], name: str, rows: int | None = None
) -> Report:
    """The view at each checkpoint of a run, preceded by a curve of the last checkpoint's main values over training.

    Of tables, the first `rows` are shown; the curve has its values from all. Raises BadInput if `run` is not a run
    folder or has no checkpoints.
    """
    saved = list_saved_models(Path(run))
    if not saved:
        raise BadInput(f"{run} has no checkpoints; pass the folder of a run that has some")
    steps = thin_steps(saved, MAX_CHECKPOINTS)
    views = [panels_of(compute_view(saved[step])) for step in steps]
    titled = [
        replace(panel, title=f"Step {step:,}: {panel.title}")
        for step, panels in zip(steps, views, strict=True)
        for panel in (replace(each, rows=each.rows[:rows]) if isinstance(each, Table) else each for each in panels)
    ]
    curve = value_curve(steps, views)
    shown = f"{len(steps)} of {len(saved)}" if len(steps) < len(saved) else f"{len(saved)}"
    return Report(
        title=f"{name} over training",
        panels=(*([] if curve is None else [curve]), *titled),
        caption=f"{shown} checkpoints, steps {steps[0]:,} to {steps[-1]:,}; --training.weight_checkpoints sets how "
        "many a run keeps.",
    )


def value_curve(steps: Sequence[int], views: Sequence[Sequence[Panel]]) -> Curve | None:
    """The values of the last checkpoint's first table or text at each step; None for views without either."""
    for index, last in enumerate(views[-1]):
        same_panel: list[Any] = [panels[index] if index < len(panels) else None for panels in views]
        if isinstance(last, Table) and last.bar is not None:
            lines = tuple(
                line_of(key, steps, [row_value(panel, key) for panel in same_panel])
                for key in dict.fromkeys(str(row[0]) for row in last.rows[:MAX_LINES])
            )
            return Curve(
                title=f"{last.bar} over training, of the first rows at the last checkpoint",
                lines=lines,
                x_label="training steps",
                y_label=last.bar,
                log_x=is_log_spaced(steps),
                caption=missing_point_caption(lines, len(steps)),
            )
        if isinstance(last, HighlightedText):
            names = [key for key, value in last.totals if isinstance(value, float)]
            if names:
                name = names[-1]
                values = [dict(panel.totals).get(name) for panel in same_panel]
                line = line_of(name, steps, values)
                return Curve(
                    title=f"{name} over training",
                    lines=(line,),
                    x_label="training steps",
                    y_label=name,
                    log_x=is_log_spaced(steps),
                )
    return None


def is_log_spaced(steps: Sequence[int]) -> bool:
    """Whether steps are drawn on a logarithmic axis, on which step 0 has no place: those of a run that kept its first.

    >>> is_log_spaced((0, 1, 4, 20, 90)), is_log_spaced((0, 500, 1000))
    (True, False)
    """
    return len(steps) > 2 and steps[-1] > 20 * max(1, steps[1])


def missing_point_caption(lines: Sequence[Line], steps: int) -> str | None:
    """A sentence on the meaning of a missing point; None if no point is missing."""
    names = [line.name for line in lines if len(line.x) < steps]
    return f"Where {', '.join(names)} has no point, it was not among the rows shown." if names else None


def row_value(table: Table, key: str) -> Any:
    """The main value of the row whose first cell is `key`; None if there is no such row."""
    assert table.bar is not None
    values = zip(table.rows, table.column(table.bar), strict=True)
    return next((value for row, value in values if str(row[0]) == key), None)


def line_of(name: str, steps: Sequence[int], values: Sequence[Any]) -> Line:
    """A line through the values that are not None."""
    points = [(float(step), float(value)) for step, value in zip(steps, values, strict=True) if value is not None]
    return Line(name, tuple(x for x, _ in points), tuple(y for _, y in points))
