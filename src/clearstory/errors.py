"""Every error a user can meet: one sentence each, with the two values that disagree and what to do.

ClearstoryError
├── BadInput             a text, file or folder that cannot be read as what it should be
├── UnknownName          a model, setting, view or corpus that does not exist; suggests the nearest
├── BadSetting           a setting whose value cannot work; says which values do
├── VocabularyMismatch   a model and a tokenizer that do not belong together
├── CorruptFile          a saved file that is truncated, inconsistent or of another format
├── CheckpointMismatch   a checkpoint of another configuration
├── ContextOverflow      more tokens than the model's context
├── Diverged             a loss that is not finite
├── FolderExists         an output that would be overwritten
│   └── FolderInUse      an output that another process is writing; says which
├── DiskError            a file that the system does not let us read or write; says which, and why
│   └── OutOfSpace       a full disk; says how much was needed
├── GrammarViolation     a generated text that does not follow the grammar it was generated under: an error of ours
├── Overloaded           more requests than a served model takes, or one that took too long; says the limit
├── RemoteServerError    a server that cannot be reached, refuses a request, or ends in the middle; says which, and why
├── MissingExtra         an optional dependency that is not installed; says how to install it
└── CannotDo             something this kind of model does not support; says which models do
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ClearstoryError(Exception):
    """Base class of all errors that this library raises."""


class BadInput(ClearstoryError):
    """A text, file or folder that cannot be read as what it should be."""


class UnknownName(ClearstoryError):
    """A name that does not exist."""


class BadSetting(ClearstoryError):
    """A setting whose value cannot work."""


class VocabularyMismatch(ClearstoryError):
    """A model and a tokenizer (or an id) that do not belong together."""


class CorruptFile(ClearstoryError):
    """A saved file that is truncated, inconsistent, or not what its name says."""


class CheckpointMismatch(ClearstoryError):
    """A checkpoint written with another configuration."""


class ContextOverflow(ClearstoryError):
    """More tokens than the model's context."""


class Diverged(ClearstoryError):
    """A loss or logits that are not finite."""


class FolderExists(ClearstoryError):
    """An output folder that would be overwritten."""


class FolderInUse(FolderExists):
    """An output folder that another process is writing."""


class DiskError(ClearstoryError):
    """A file or folder that the system does not let us read or write."""


class OutOfSpace(DiskError):
    """A disk that is full."""


class GrammarViolation(ClearstoryError):
    """A generated text that does not follow the grammar it was generated under: an error of this library."""


class Overloaded(ClearstoryError):
    """More requests than a served model takes at a time, or a request that took longer than it may."""


class RemoteServerError(ClearstoryError):
    """A server that cannot be reached, refuses a request, or ends in the middle of an answer."""


class MissingExtra(ClearstoryError):
    """An optional dependency that is not installed."""


class CannotDo(ClearstoryError):
    """Something this kind of model does not support."""


class ModelWarning(UserWarning):
    """Files that were read in part or not as they were saved: left out, changed, or made again."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A suggestion for a wrong name: the closest known one, or the whole list when none is close.

    >>> nearest("gtp2", ["gpt2", "llama3-8b"])
    "did you mean 'gpt2'?"
    """
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.6) if len(name) <= 200 else []
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(known)}"
