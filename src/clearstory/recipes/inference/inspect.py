"""Inspect: computes a view of a model reading a text, by itself, compared with another, or across checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Unpack

from clearstory.errors import BadSetting, UnknownName, nearest
from clearstory.generation.beam_search import Candidate, beam_search
from clearstory.generation.engine import generate
from clearstory.generation.settings import Sampling
from clearstory.lens.registry import VIEWS, check_supported, load_view
from clearstory.lens.rendering.render import format_of, save_view
from clearstory.lens.views import View
from clearstory.lens.views.difference import ROWS, difference
from clearstory.models.base import LanguageModel
from clearstory.models.prompts import Truncation
from clearstory.recipes.inference.across_checkpoints import view_across_checkpoints
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer
from clearstory.recipes.inference.prompt_format import PromptFormat
from clearstory.recipes.settings.keywords import ViewKeywords
from clearstory.text.tokenizers import Tokenizer

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
    **settings: Unpack[ViewKeywords],
) -> View:
    """A view of a model reading a text, written to `out` (.html, .svg, .csv or .json) if that is given.

    Args:
        model: a model folder, run folder or checkpoint, or a loaded model.
        text: what the model reads.
        view: name of the view; see `clearstory inspect --help`.
        out: file to write the view to.
        device: cpu, cuda, mps or auto.
        across_checkpoints: compute the view at each checkpoint of the run; `model` is then the folder of a run.
        compare_model: second model. The view returned is the second minus the first; see `lens.views.difference`.
        compare_text: second text, with the same effect.
        settings: settings of the view, such as `top` and `temperature` of "next-token".

    Raises UnknownName for an unknown view or setting, CannotDo for a view that this family of models does not support
    and for two views without a meaningful difference.

    >>> import clearstory
    >>> clearstory.inspect("runs/book/model", "the king of", top=5).rows  # doctest: +SKIP
    """
    function = load_view(view)
    check_view_settings(function, view, settings)
    if out is not None:
        format_of(out)  # before anything is computed
    is_comparison = compare_model is not None or compare_text is not None
    if is_comparison and across_checkpoints:
        raise BadSetting(
            "across_checkpoints is set together with compare_model or compare_text; leave out one of the two"
        )

    def compute_view(model: str | Path | ModelWithTokenizer, text: str = text) -> View:
        network, tokenizer = load_model_and_tokenizer(model, device)
        check_supported(view, network)
        if VIEWS[view].needs_generator:
            generator = token_generator(network, tokenizer, text, settings.get("truncate"))
            return function(network, tokenizer, text, generator, **settings)
        if is_comparison and VIEWS[view].lists_vocabulary:
            return function(network, tokenizer, text, **{**settings, "top": network.vocab})
        return function(network, tokenizer, text, **settings)

    if is_comparison:
        second = compute_view(model if compare_model is None else compare_model, compare_text or text)
        computed = difference(compute_view(model), second, top=settings.get("top", ROWS))
    elif across_checkpoints:
        if not isinstance(model, str | Path):
            raise BadSetting("a loaded model has no checkpoints; pass the folder of its run")
        computed = view_across_checkpoints(model, compute_view, view)
    else:
        computed = compute_view(model)
    if out is not None:
        save_view(computed, out)
    return computed


def check_view_settings(function: Callable[..., View], view: str, settings: Mapping[str, object]) -> None:
    """Raise UnknownName if a name in `settings` is no keyword-only parameter of the view's function."""
    parameters = signature(function).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for name in settings:
        if name not in known:
            raise UnknownName(f"the view '{view}' has no setting called '{name}'; {nearest(name, known)}")


def token_generator(
    model: LanguageModel, tokenizer: Tokenizer, text: str, truncate: Truncation | None
) -> Callable[..., GeneratedTokens]:
    """A function that generates tokens after `text`; its keyword arguments are fields of Sampling."""

    def generate_tokens(**settings: Any) -> GeneratedTokens:
        sampling = Sampling(**settings)
        prompt_format = PromptFormat.of(model, tokenizer, truncate)
        ids, source = prompt_format.encode(tokenizer, text)
        options: dict[str, Any] = {"source": source, **prompt_format.decoding_options}
        if sampling.beam == 1:
            return tuple(token.id for token in generate(model, ids, sampling, **options)), ()
        candidates: list[Candidate] = []
        best = beam_search(model, ids, sampling, on_candidate=candidates.append, **options)[0]
        return best.ids, tuple(candidates)

    return generate_tokens
