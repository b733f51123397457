"""LimitedBackend: a `tokenizers` object whose failures are raised as ClearstoryError and whose regular expressions have
a time limit.

The library is written in Rust: where it panics, Python sees a PanicException, which no `except Exception` catches. A
regular expression such as `(a+)+$` takes time exponential in the text. Expressions of published tokenizers are known to
be harmless; others run in a thread that is given up when its time is over: by the functions for batches, since the
others keep the interpreter's lock, and nothing else would run until they end.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from clearstory.errors import BadInput
from clearstory.text.pretokenizers import KNOWN_PATTERNS
from clearstory.text.tokenizer_limits import flat_steps, has_long_pieces, largest_growth, pattern_of

Result = TypeVar("Result")

SECONDS = 1.5
"""Time limit in seconds for a short text with an unknown regular expression."""

CHARACTERS_PER_SECOND = 50_000
"""Minimum speed for a long text, a hundredth of the usual one."""

MEASURED_GROWTH = 4.0
"""Growth by Replace and Prepend from which a text is first normalized in parts: each costs 100 bytes a character."""

LONG = 5_000
"""Characters or ids from which a text is encoded or decoded as a batch of one: the library then lets other threads run
meanwhile. A megabyte takes most of a second, in which a server would answer nobody.
"""

LONGEST_GROWTH, ALLOWED_CHARACTERS, PART = 8, 10_000, 500
"""A text may become eight times as long, plus ten thousand characters; it is checked in parts of this length."""


SURROGATE = re.compile("[\ud800-\udfff]")


class LimitedBackend:
    """The part of a `tokenizers` object that is used, with limits; other attributes are those of the object."""

    def __init__(self, backend: Any, parts: Mapping[str, Any]) -> None:
        self.backend = backend
        self.limited = not patterns_of(parts) <= KNOWN_PATTERNS or has_long_pieces(parts["model"])
        steps = list(flat_steps(parts.get("normalizer"), "normalizer"))
        self.grows = largest_growth(steps, unicode=False) > MEASURED_GROWTH

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def encode(self, text: str, add_special_tokens: bool = True) -> Any:
        """The encoding of a text. Raises BadInput if the library fails or takes too long."""

        def call() -> Any:
            self._check_growth([text])
            if self.limited or len(text) > LONG:
                return self.backend.encode_batch([text], add_special_tokens=add_special_tokens)[0]
            return self.backend.encode(text, add_special_tokens=add_special_tokens)

        return self._call(call, [text])

    def encode_batch_fast(self, texts: Sequence[str], add_special_tokens: bool = True) -> Any:
        """The encodings of texts without offsets. Raises BadInput if the library fails or takes too long."""

        def call() -> Any:
            self._check_growth(texts)
            return self.backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)

        return self._call(call, texts)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of ids. Raises BadInput if the library fails or takes too long."""
        known = list(ids)

        def call() -> str:
            if self.limited or len(known) > LONG:
                return str(self.backend.decode_batch([known], skip_special_tokens=skip_special_tokens)[0])
            return str(self.backend.decode(known, skip_special_tokens=skip_special_tokens))

        return self._call(call, n_ids=len(known))

    def pretokenize(self, text: str) -> list[str]:
        """The pre-tokens of a text after normalization. Raises BadInput if the library fails or takes too long."""

        def call() -> list[str]:
            if self.limited:
                self.encode_batch_fast([text])  # takes as long, and can be given up
            self._check_growth([text])
            normalizer, pre_tokenizer = self.backend.normalizer, self.backend.pre_tokenizer
            clean = text if normalizer is None else normalizer.normalize_str(text)
            return [clean] if pre_tokenizer is None else [piece for piece, _ in pre_tokenizer.pre_tokenize_str(clean)]

        return self._call(call, [text])

    def _check_growth(self, texts: Sequence[str]) -> None:
        """Raise BadInput for a text that the normalizer makes much longer."""
        for text in texts if self.grows else ():
            length, most = 0, LONGEST_GROWTH * len(text) + ALLOWED_CHARACTERS
            for start in range(0, len(text), PART):
                length += len(self.backend.normalizer.normalize_str(text[start : start + PART]))
                if length > most:
                    raise BadInput(
                        f"the tokenizer's normalizer turns a text of {len(text):,} characters into more than "
                        f"{most:,}; use another tokenizer"
                    )

    def _call(self, call: Callable[[], Result], texts: Sequence[str] = (), n_ids: int = 0) -> Result:
        if self.limited:
            seconds = SECONDS + (sum(map(len, texts)) + n_ids) / CHARACTERS_PER_SECOND
            return call_library(lambda: call_within(call, seconds), texts)
        return call_library(call, texts)


def patterns_of(parts: Mapping[str, Any]) -> set[str]:
    """The regular expressions of a tokenizer.json."""
    found = set()
    for key in ("normalizer", "pre_tokenizer", "decoder"):
        for step in flat_steps(parts.get(key), key):
            kind, pattern = pattern_of(step)
            if kind == "Regex":
                found.add(pattern)
    return found


def call_library(call: Callable[[], Result], texts: Sequence[str] = ()) -> Result:
    """The result of a call of the library for texts; a panic, or a text that it cannot take, is raised as BadInput."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # PanicException is no Exception, and cannot be imported
        if found := next(filter(None, map(SURROGATE.search, texts)), None):
            raise BadInput(
                f"the text has half a surrogate pair ({ascii(found[0])[1:-1]} at character {found.start():,}), which "
                "is not a character and has no UTF-8 encoding; remove it"
            ) from None
        if isinstance(error, BadInput):
            raise
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"the tokenizer fails on this text ({reason}); it is damaged, use another") from None


def call_within(call: Callable[[], Result], seconds: float) -> Result:
    """The result of a call with a time limit in seconds; a call that exceeds it is abandoned and continues in its
    thread.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call_library(call))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise BadInput(f"the tokenizer takes more than {seconds:.1f} s for this text; use another")
    return results[0]
