"""Tasks of `evaluate` that compare vectors, named with their files: similarity:FILE, analogy:FILE, weat:FILE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from clearstory.errors import BadSetting, UnknownName, nearest
from clearstory.recipes.settings.evaluation_tasks import HARNESS, PROBES, harness_tasks

VectorTaskKind = Literal["similarity", "analogy", "weat"]

VECTOR_TASKS: tuple[VectorTaskKind, ...] = ("similarity", "analogy", "weat")

LABELED_TASKS = ("classify", "pairs", "tag", "embed", "translate", "summarize", "chat", "choose")
"""Tasks with labeled examples."""

TEXT_SETTINGS = {"windows": "strided", "batch_size": 8, "limit": None, "precision": "auto", "int8": False}
"""Settings of task text with their defaults; tasks of lm-eval and probes have limit and batch_size, too."""


class VectorTask(NamedTuple):
    """What is measured, and the file, folder or glob of the sets."""

    kind: VectorTaskKind
    source: str


def vector_tasks(tasks: Iterable[str], sources: Iterable[str]) -> tuple[VectorTask, ...]:
    """The tasks that compare vectors; () where the task is another one.

    A source without a kind of its own is of the kind before it. Raises UnknownName for a task that does not exist,
    BadSetting for several that need different files, and for one without a file.

    >>> [tuple(each) for each in vector_tasks(["similarity:a.txt"], ["b.txt", "weat:c.json"])]
    [('similarity', 'a.txt'), ('similarity', 'b.txt'), ('weat', 'c.json')]
    """
    tasks = tuple(tasks)
    if harness_tasks(tasks):
        return ()
    if not tasks:
        raise BadSetting("task is empty; give text, classify, pairs, tag, embed, or tasks such as similarity:FILE")
    kinds = [check_task(task) for task in tasks]
    if not any(kind in VECTOR_TASKS for kind in kinds):
        if len(kinds) > 1:
            raise BadSetting(f"task is {', '.join(tasks)}; give one of them, or several that compare vectors")
        return ()
    found: list[VectorTask] = []
    kind = kinds[0]
    for word in (*tasks, *sources):
        name, separator, source = word.partition(":")
        if word in tasks or (separator and name in VECTOR_TASKS):
            kind = name
        else:
            source = word
        if kind not in VECTOR_TASKS:
            raise BadSetting(f"task is {', '.join(tasks)}; {kind} cannot be combined with tasks that compare vectors")
        if source:
            found.append(VectorTask(kind, source))
    if not found:
        raise BadSetting(f"task {kind} needs a file; write {kind}:FILE")
    return tuple(found)


def check_task(task: str) -> str:
    """The kind of a task. Raises UnknownName for one that does not exist."""
    kind, separator, _ = task.partition(":")
    known = ("text", *LABELED_TASKS, *VECTOR_TASKS, HARNESS, PROBES)
    if kind not in known:
        raise UnknownName(f"unknown task '{kind[:60]}'; {nearest(kind, known)}")
    if kind == HARNESS:
        raise BadSetting(f"task is {task[:60]!r}; name the task after a colon, such as {HARNESS}:arc_easy")
    if separator and kind not in VECTOR_TASKS:
        raise BadSetting(f"task is {task[:60]!r}; the files of task {kind} are named as TEXT, without a colon")
    return kind


def check_text_settings(tasks: Sequence[str], values: Mapping[str, Any]) -> None:
    """Raises BadSetting for one of TEXT_SETTINGS, or stride, that is given with a task that does not use it."""
    if tuple(tasks) == ("text",):
        return
    by_others = bool(harness_tasks(tasks)) or tuple(tasks) == (PROBES,)
    used = ("limit", "batch_size") if by_others else ()
    unused = [name for name, usual in TEXT_SETTINGS.items() if values[name] != usual and name not in used]
    if values["stride"] is not None and (by_others or tasks[0].partition(":")[0] in VECTOR_TASKS):
        unused.append("stride")
    if unused:
        raise BadSetting(f"{unused[0]} does not apply to task {tasks[0]}, which reads every example; leave it out")
