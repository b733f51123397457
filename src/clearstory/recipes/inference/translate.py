"""Translate and summarize: the text that a model generates for each source, found by beam search or greedily."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Unpack

from clearstory.errors import CannotDo, ClearstoryError
from clearstory.formats.lora.adapters import weights_fingerprint
from clearstory.models.base import LanguageModel, reads_source
from clearstory.models.capabilities import family_name
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.precision import Precision, resolve_precision
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_generator
from clearstory.recipes.inference.source_lines import SourceLine, read_source_lines
from clearstory.recipes.inference.translation_file import TranslationFile
from clearstory.recipes.settings.keywords import TranslationKeywords
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.settings.translation import TranslationSettings
from clearstory.tasks.text_generation import GeneratedText, TargetDecoding, generate_targets, view_for_generation
from clearstory.tasks.text_to_text_format import TextToTextFormat, saved_settings
from clearstory.tasks.text_to_text_settings import SourceTruncation, TextToTextSettings, TextToTextTask
from clearstory.text.tokenizers import Tokenizer

ProgressFunction = Callable[[int, int], None]
"""Called with the number of texts done and of all."""

CHUNK = 1024
"""Number of sources of a file that are sorted by length together."""


@dataclass(frozen=True, kw_only=True)
class TranslatedText:
    """A source with its translation, the number of tokens, and its score: log-probability / length ** penalty.

    `n_best` are all translations if several were requested, best first; `error` is the reason if there is none.
    """

    source: str
    text: str
    tokens: int
    score: float
    n_best: tuple[GeneratedText, ...] = ()
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as a dictionary for JSON."""
        values: dict[str, Any] = {name: getattr(self, name) for name in ("source", "text", "tokens", "score")}
        if self.n_best:
            values["n_best"] = [vars(each) for each in self.n_best]
        return values if self.error is None else {**values, "error": self.error}


@dataclass(frozen=True, kw_only=True)
class Translation:
    """All texts with their translations, in the order of the input, and the time in seconds."""

    texts: tuple[TranslatedText, ...]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second, including the time for the sources."""
        return sum(each.tokens for each in self.texts) / self.seconds if self.seconds else 0.0

    @property
    def failures(self) -> tuple[str, ...]:
        """Error messages of lines of files without a translation."""
        return tuple(each.error for each in self.texts if each.error is not None)

    def to_json(self) -> dict[str, Any]:
        """The first translation, all of them under `translations`, and the speed."""
        every = [each.to_json() for each in self.texts]
        speed = {"tokens_per_second": self.tokens_per_second, "seconds": self.seconds}
        return {"text": self.texts[0].text, "translations": every, **speed}


def translate(
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    *,
    on_progress: ProgressFunction | None = None,
    **settings: Unpack[TranslationKeywords],
) -> Translation:
    """Translate each text, or each line of files; an empty line of a file stays empty.

    A line of a file that cannot be translated has an `error` and an empty text; for a text given directly an error is
    raised. A translation has at most `max_tokens` tokens, by default 50 more than its source. A beam of 1 is greedy
    decoding. Settings default to those of the model's generation config, else 4 beams for an encoder-decoder, greedy
    search for a decoder, and a length penalty of 1. `settings` are the fields of TranslationSettings; see `clearstory
    translate --help`.

    Args:
        model: a model folder, run folder, checkpoint or .gguf file, or a loaded model.
        texts: texts, or files with one text per line.
        on_progress: called with the number of finished texts and of all texts.

    Raises CannotDo for a decoder that was not fine-tuned to translate, if there is no prompt; BadInput for an empty
    text.

    >>> import clearstory
    >>> clearstory.translate("runs/en-de", "Good morning.").texts[0].text  # doctest: +SKIP
    'Guten Morgen.'
    """
    return generate_for_sources("translate", model, texts, build_settings(TranslationSettings, settings), on_progress)


def summarize(
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    *,
    on_progress: ProgressFunction | None = None,
    **settings: Unpack[TranslationKeywords],
) -> Translation:
    """Summarize each text, or each line of files; arguments and errors are those of `translate`.

    A decoder that was not fine-tuned is prompted in its chat template, or continues "TL;DR:" after the text.

    >>> import clearstory
    >>> clearstory.summarize("runs/abstracts", "abstracts.txt").texts[0].text  # doctest: +SKIP
    'A new method.'
    """
    return generate_for_sources("summarize", model, texts, build_settings(TranslationSettings, settings), on_progress)


def generate_for_sources(
    task: TextToTextTask,
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    settings: TranslationSettings,
    on_progress: ProgressFunction | None,
) -> Translation:
    """What `translate` and `summarize` do."""
    s = settings
    precision = resolve_precision(s.precision, s.int8)
    network, tokenizer, config = load_generator(model, s.device, keep_blocks=precision in ("auto", "int8", "int4"))
    check_trained(task, network, config, bool(s.prompt_template or s.instruction))
    prompt = TextToTextSettings(
        source_prefix=s.source_prefix, prompt_template=s.prompt_template, instruction=s.instruction
    )
    if s.max_tokens is not None:
        config = replace(config, max_new_tokens=None, max_length=None)
    cut: SourceTruncation | None = "source-left" if s.truncate == "left" else s.truncate
    format = TextToTextFormat.of(task, network, tokenizer, prompt, cut, config)
    decoding = TargetDecoding.of(
        config,
        reads_source=format.reads_source,
        beam=s.beam,
        length_penalty=s.length_penalty,
        max_tokens=s.max_tokens,
        n_best=s.n_best,
    )
    if not format.reads_source:
        format = replace(format, reserved=decoding.limit(1, format))
    lines = read_source_lines(texts, s.errors)
    started = time.perf_counter()
    sources = SourceTexts(network, format, decoding, precision, lines)
    if s.out is None:
        results = dict(sources.translate(range(len(lines)), on_progress))
        ordered = tuple(results[index] for index in range(len(lines)))
        return Translation(texts=ordered, seconds=time.perf_counter() - started)
    file = TranslationFile(s.out, fingerprint(network, tokenizer, format, decoding, lines))
    known = file.read()
    done = {index: TranslatedText(**{**each, "n_best": best_of(each)}) for index, each in known.items()}
    missing = [index for index in range(len(lines)) if index not in done]

    def finished(results: Iterable[tuple[int, TranslatedText]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, each in results:
            done[index] = each
            yield index, each.to_json()

    for start in range(0, len(missing), CHUNK):
        chunk = missing[start : start + CHUNK]

        def report(count: int, _: int, before: int = len(done)) -> None:
            if on_progress is not None:
                on_progress(before + count, len(lines))

        file.append_each(finished(sources.translate(chunk, report)))
    ordered = tuple(done[index] for index in range(len(lines)))
    file.finish([each.to_json() for each in ordered])
    return Translation(texts=ordered, seconds=time.perf_counter() - started)


def best_of(record: dict[str, Any]) -> tuple[GeneratedText, ...]:
    """The translations of a record of a file."""
    return tuple(GeneratedText(**each) for each in record.get("n_best", ()))


@dataclass(frozen=True)
class SourceTexts:
    """Sources with the model that translates them."""

    network: LanguageModel
    format: TextToTextFormat
    decoding: TargetDecoding
    precision: Precision
    lines: Sequence[SourceLine]

    def translate(
        self, indices: Sequence[int], on_progress: ProgressFunction | None
    ) -> Iterator[tuple[int, TranslatedText]]:
        """The translations of these sources, with their indices.

        Raises the error of a text that is not a line of a file.
        """
        read: dict[int, tuple[int, ...]] = {}
        count = 0
        for index in indices:
            line = self.lines[index]
            error = line.error
            if error is None and line.text.strip():
                try:
                    read[index] = self.format.encode_source(line.text, line.location).ids
                    continue
                except ClearstoryError as reason:
                    if not line.location:
                        raise
                    error = str(reason)
            count += 1
            yield index, TranslatedText(source=line.text, text="", tokens=0, score=0.0, error=error)
        if not read:
            return
        chosen = list(read)
        ids = [read[index] for index in chosen]
        view = view_for_generation(
            self.network, self.format, [len(each) for each in ids], self.decoding, self.precision
        )
        for at, texts in generate_targets(view, self.format, ids, self.decoding):
            best, source = texts[0], self.lines[chosen[at]].text
            count += 1
            if on_progress is not None:
                on_progress(count, len(indices))
            several = tuple(texts) if self.decoding.n_best > 1 else ()
            yield chosen[at], TranslatedText(source=source, **vars(best), n_best=several)


def check_trained(task: TextToTextTask, model: Any, config: GenerationConfig, has_prompt: bool) -> None:
    """Raise CannotDo for a decoder without a prompt for translation."""
    if task == "summarize" or reads_source(model) or saved_settings(config) or has_prompt:
        return
    raise CannotDo(
        f"this model ({family_name(model)}) is not an encoder-decoder and was not fine-tuned to translate; use it with "
        'clearstory generate, give a --prompt-template such as "{source} =", fine-tune it with: clearstory finetune '
        "MODEL pairs.tsv --task translate, or train one with: clearstory train pairs.tsv --model clear-translate"
    )


def fingerprint(
    model: Any, tokenizer: Tokenizer, format: TextToTextFormat, decoding: TargetDecoding, lines: Sequence[SourceLine]
) -> str:
    """A hash of all that the translations of a file depend on."""
    digest = blake2b(weights_fingerprint(model).encode(), digest_size=16)
    parts = (tokenizer.fingerprint, format.task, format.settings, format.truncate, decoding)
    digest.update(repr(parts).encode("utf-8", "surrogatepass"))
    for line in lines:
        digest.update(line.text.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
