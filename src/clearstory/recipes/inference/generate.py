"""Generate: generates text after one prompt or several, by sampling or beam search."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from clearstory.errors import BadInput, CannotDo
from clearstory.generation.beam_search import beam_search_batch
from clearstory.generation.engine import Engine, Token
from clearstory.generation.grammar import Grammar
from clearstory.generation.prompt_format import PromptFormat
from clearstory.generation.settings import Sampling, SamplingOverrides, sampling_of
from clearstory.models.base import LanguageModel
from clearstory.models.capabilities import Capability, family_name, has_capability
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.inference_model import inference_model, precision_note
from clearstory.models.precision import Precision, resolve_precision
from clearstory.models.prompts import PromptOptions, Truncation, is_chat
from clearstory.recipes.inference.completion import Completion, CompletionBuilder, TextChunk
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_generator
from clearstory.recipes.inference.text_grammar import check_with_grammar, read_grammar
from clearstory.recipes.notebook_html import html_completion
from clearstory.recipes.settings.keywords import SamplingKeywords
from clearstory.recipes.settings.schema import build_settings
from clearstory.text.tokenizers import Tokenizer

BEAM_BATCH_SIZE = 16
"""Prompts whose beams are searched in one batch."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """All completions in the order of their prompts (the beams of a prompt best first), and the time in seconds."""

    completions: tuple[Completion, ...]
    seconds: float

    @property
    def text(self) -> str:
        """Text of the first completion."""
        return self.completions[0].text

    @property
    def tokens(self) -> int:
        """Number of generated tokens of all completions."""
        return sum(len(completion.ids) for completion in self.completions)

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second, including the time for the prompts."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def _repr_html_(self) -> str:
        """All prompts with their completions, for notebooks."""
        return "".join(
            html_completion(each.prompt, each.text, continues_prompt=each.continues_prompt) for each in self.completions
        )

    def to_json(self) -> dict[str, Any]:
        """The first completion and the speed, with all completions under `completions` if there are several."""
        speed = {"tokens": self.tokens, "tokens_per_second": self.tokens_per_second, "seconds": self.seconds}
        first = self.completions[0].to_json()
        if len(self.completions) == 1:
            return {**first, **speed}
        return {**first, "completions": [completion.to_json() for completion in self.completions], **speed}


def generate(
    model: str | Path | ModelWithTokenizer,
    prompt: str | Sequence[str] = "",
    sampling: Sampling | None = None,
    *,
    raw: bool = False,
    system: str | None = None,
    special_tokens: bool = True,
    truncate: Truncation | None = None,
    ignore_eos: bool = False,
    json_schema: Mapping[str, Any] | str | Path | None = None,
    regex: str | None = None,
    precision: Precision = "auto",
    int8: bool = False,
    device: str | None = None,
    on_text: Callable[[TextChunk], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    **settings: Unpack[SamplingKeywords],
) -> Generation:
    """Generate text after one prompt or several.

    The prompt of an encoder-decoder is its source: the text to translate, to summarize, or to fill in. The prompt of a
    model with a chat template is a user message, and the text is the answer, unless `raw`. Sampling settings default to
    those of the model's generation config, if it has one.

    Args:
        model: a model folder, run folder, checkpoint or .gguf file, or a loaded model.
        prompt: one prompt, or a sequence of prompts that are processed as a batch.
        sampling: sampling settings, instead of the generation config; fields given in `settings` override it.
        raw: continue the prompt as text, without the chat template.
        system: system message of the chat template.
        special_tokens: add the special tokens that the model's tokenizer adds around a text.
        truncate: "left" drops the beginning of a prompt that is longer than the context; None raises ContextOverflow.
        ignore_eos: continue after the end tokens.
        json_schema: JSON schema that the text must follow, or the file that holds it; needs the extra `structured`.
        regex: regular expression that the whole text must match; needs the extra `structured`.
        precision: precision of the weights: fp32, fp16, bf16, int8, int4, or auto (fp32 or fp16, whichever is faster on
            this machine).
        int8: same as precision int8.
        device: cpu, cuda, mps or auto.
        on_text: called with each TextChunk as soon as its text is final; see `stream_generate` for an iterator.
        on_note: called with each note before the text, such as the use of a chat template.
        settings: fields of Sampling, such as `max_tokens` and `temperature`.

    >>> import clearstory
    >>> clearstory.generate("runs/book/model", "Once", max_tokens=20, seed=1).text  # doctest: +SKIP
    ' upon a time'
    """
    given = build_settings(SamplingOverrides, settings).given()
    options = PromptOptions(raw=raw, system=system, add_special_tokens=special_tokens)
    grammar = read_grammar(json_schema, regex)
    items = stream_generate(
        model,
        prompt,
        given if sampling is None else replace(sampling, **given),
        options=options,
        truncate=truncate,
        ignore_eos=ignore_eos,
        precision=resolve_precision(precision, int8),
        device=device,
        on_note=on_note,
        grammar=grammar,
    )
    for item in items:
        if isinstance(item, Generation):
            return item
        if on_text is not None:
            on_text(item)
    raise AssertionError("the last item is the Generation")


def stream_generate(
    model: str | Path | ModelWithTokenizer,
    prompt: str | Sequence[str],
    sampling: Sampling | Mapping[str, Any],
    *,
    options: PromptOptions = PromptOptions(),
    truncate: Truncation | None = None,
    ignore_eos: bool = False,
    precision: Precision = "auto",
    device: str | None = None,
    on_note: Callable[[str], None] | None = None,
    grammar: Grammar | None = None,
) -> Iterator[TextChunk | Generation]:
    """Chunks of text as they are generated, and finally the Generation.

    `sampling`: all settings, or a dict of those that override the model's generation config. Prompt i is sampled with
    seed `seed` + i, so its completion does not depend on the other prompts. Beam search yields no chunks: no part of a
    beam is final before its end. If the number of beams is the model's default, only the best beam is returned. Every
    complete text follows the `grammar`, for which stop strings and constraints of the generation config do not apply.
    """
    keep_blocks = precision in ("auto", "int8", "int4")
    network, tokenizer, config = load_generator(model, device, keep_blocks=keep_blocks)
    if not has_capability(network, Capability.CAUSAL):
        raise CannotDo(
            f"this model ({family_name(network)}) does not generate text; use clearstory fill-mask to fill a [MASK], "
            "clearstory embed for vectors, or clearstory classify if it has labels"
        )
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise BadInput("there is no prompt; give one, or an empty text to generate from the start token")
    best_only = not isinstance(sampling, Sampling) and "beam" not in sampling
    if isinstance(sampling, Sampling) or "max_tokens" in sampling:
        config = replace(config, max_new_tokens=None, max_length=None)
    if grammar is not None:
        config = replace(config, stop_strings=(), num_beams=None)
    sampling = sampling if isinstance(sampling, Sampling) else sampling_of(config, sampling)
    if grammar is not None:
        check_with_grammar(sampling)
    prompt_format = PromptFormat.of(network, tokenizer, truncate, ignore_eos, generation_config=config, options=options)
    if prompt_format.reads_source and not all(prompts):
        raise BadInput("this model is an encoder-decoder and has no source text; give it the text as the prompt")
    if on_note is not None:
        for note in notes_on(prompt_format, tokenizer, config):
            on_note(note)
    batch_size = len(prompts) if sampling.beam == 1 else sampling.beam * min(len(prompts), BEAM_BATCH_SIZE)
    network = inference_model(network, precision, batch_size, steps=sampling.max_tokens)
    rounded = precision_note(network) if precision == "auto" else None
    if on_note is not None and rounded is not None:
        on_note(rounded)
    started = time.perf_counter()
    completions: list[Completion] = []
    if sampling.beam > 1:
        for start in range(0, len(prompts), BEAM_BATCH_SIZE):
            batch = prompts[start : start + BEAM_BATCH_SIZE]
            completions += beam_completions(network, tokenizer, batch, sampling, prompt_format, best_only)
    else:
        completions = yield from sample_completions(network, tokenizer, prompts, sampling, prompt_format, grammar)
    yield Generation(completions=tuple(completions), seconds=time.perf_counter() - started)


def notes_on(prompt_format: PromptFormat, tokenizer: Tokenizer, config: GenerationConfig) -> Iterator[str]:
    """Notes that are shown before the text is generated."""
    if is_chat(prompt_format.model, tokenizer, prompt_format.options):
        yield "the prompt is a message in the model's chat template; --raw continues it as text"
    if config.unsupported:
        yield f"the generation config sets {', '.join(config.unsupported)}, which is not supported and has no effect"


def sample_completions(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: Sampling,
    prompt_format: PromptFormat,
    grammar: Grammar | None = None,
) -> Generator[TextChunk, None, list[Completion]]:
    """Sample after all prompts in one batch: yields chunks of text, returns the completions."""
    engine = Engine(model, suppress_tokens=prompt_format.suppress_tokens)
    builders: list[CompletionBuilder] = []
    options = prompt_format.request_options
    if grammar is not None:
        mask = grammar.mask(tokenizer, prompt_format.eos_token_ids)
        options["constraints"] = None
    for index, prompt in enumerate(prompts):
        seed = None if sampling.seed is None else sampling.seed + index
        builder = CompletionBuilder(tokenizer, prompt, sampling, prompt_format, grammar)
        builders.append(builder)
        if grammar is not None:
            options["token_mask"] = mask.copy()
        engine.add(builder.prompt_ids, replace(sampling, seed=seed), source=builder.source, **options)
    while engine.has_unfinished:
        for output in engine.next_tokens():
            builder = builders[output.request]
            if output.finished:
                builder.finished = output.finished
            text = builder.append_token(output.token)
            if output.finished and not builder.decoder.stopped:
                text += builder.close()
            elif builder.decoder.stopped and not output.finished:
                engine.cancel(output.request)
            if text:
                yield TextChunk(output.request, text, builder.continues_prompt)
    return [builder.completion() for builder in builders]


def beam_completions(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: Sampling,
    prompt_format: PromptFormat,
    best_only: bool = False,
) -> list[Completion]:
    """The beams of all prompts, found by beam search; those of one prompt best first, or its best alone."""
    encoded = [prompt_format.encode(tokenizer, prompt) for prompt in prompts]
    hypotheses = beam_search_batch(
        model,
        [ids for ids, _ in encoded],
        sampling,
        sources=[source for _, source in encoded if source is not None] or None,
        **prompt_format.search_options,
    )
    completions = []
    for prompt, beams in zip(prompts, hypotheses, strict=True):
        for beam in beams[:1] if best_only else beams:
            builder = CompletionBuilder(tokenizer, prompt, sampling, prompt_format)
            for id, logprob in zip(beam.ids, beam.logprobs, strict=True):
                builder.append_token(Token(id, logprob))
                if builder.decoder.stopped:
                    break
            builder.close()
            if builder.finished == "length" and beam.ids[-1] in prompt_format.eos_token_ids:
                builder.finished = "eos"
            completions.append(builder.completion(beam.score))
    return completions
