"""Every error a user can meet. One sentence each: the two things that disagree, and the way out.

ClearstoryError
├── BadInput             a text, file or folder that cannot be read as what it should be
├── UnknownName          a model, setting, view or corpus that does not exist; names the nearest
├── BadSetting           a setting whose value cannot work; says which values do
├── VocabularyMismatch   a model and a tokenizer that do not belong together
├── CorruptFile          a saved file that is truncated, lies about itself or is not ours
├── CheckpointMismatch   a checkpoint of another configuration
├── ContextOverflow      more tokens than the model can hold
├── Diverged             a loss that stopped being a number
├── FolderExists         an output that would be overwritten
├── OutOfSpace           a disk that is full; says how much was needed
├── MissingExtra         an optional dependency that is not installed; says how to get it
└── CannotDo             something this kind of model does not do; says what it does
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ClearstoryError(Exception):
    """The root: catch this to catch all that this library raises on purpose."""


class BadInput(ClearstoryError):
    """A text, file or folder that cannot be read as what it should be."""


class UnknownName(ClearstoryError):
    """A name that does not exist, with the nearest that does."""


class BadSetting(ClearstoryError):
    """A setting whose value cannot work."""


class VocabularyMismatch(ClearstoryError):
    """A model and a tokenizer (or an id) that do not belong together."""


class CorruptFile(ClearstoryError):
    """A saved file that is truncated, lies about itself, or is not what its name says."""


class CheckpointMismatch(ClearstoryError):
    """A checkpoint written under another configuration."""


class ContextOverflow(ClearstoryError):
    """More tokens than the model can hold."""


class Diverged(ClearstoryError):
    """A loss that stopped being a number."""


class FolderExists(ClearstoryError):
    """An output folder that would be overwritten."""


class OutOfSpace(ClearstoryError):
    """A disk that is full."""


class MissingExtra(ClearstoryError):
    """An optional dependency that is not installed."""


class CannotDo(ClearstoryError):
    """Something this kind of model does not do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The way out of a wrong name: the closest known one, or the whole list when nothing is close.

    >>> nearest("gtp2", ["gpt2", "llama3-8b"])
    "did you mean 'gpt2'?"
    """
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(known)}"
