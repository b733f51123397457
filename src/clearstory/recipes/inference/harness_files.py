"""Local data for tasks of lm-evaluation-harness: FOLDER/TASK.jsonl, or FOLDER/TASK/SPLIT.jsonl, by the task's own name.

Rows have the fields that the task reads, or those of the files that the data set's authors publish; these are brought
into the fields of the first kind. Nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput
from clearstory.text.files import content_suffix, read_lines, read_records
from clearstory.text.read_notes import ReadNotes

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".txt", ".txt.gz")
"""Names of files with data, in the order in which they are looked for."""

SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
"""Settings of a task that name the parts of its data set."""

Row = dict[str, Any]


def find_task_files(folder: Path, task: str) -> dict[str, Path]:
    """The file of each part of a task's data; a single file for all parts has the key "". {} if there are none."""
    for suffix in SUFFIXES:
        if (file := folder / f"{task}{suffix}").is_file():
            return {"": file}
    inside = folder / task
    if not inside.is_dir():
        return {}
    files = sorted(path for path in inside.iterdir() if path.name.endswith(SUFFIXES))
    return {path.name.split(".")[0]: path for path in files}


def with_task_files(config: Mapping[str, Any], files: Mapping[str, Path], num_fewshot: int | None) -> Row:
    """A task's config whose data are read from files; parts without a file are left out.

    A single file is the part that is evaluated: the test part, else the validation part. Raises BadInput if neither
    has a file, and where examples are wanted and no other part has one.
    """
    parts = {name: config.get(name) for name in SPLITS}
    evaluated = parts["test_split"] or parts["validation_split"] or parts["training_split"]
    if "" in files:
        files = {str(evaluated): files[""]}
    kept = {name: part if part in files else None for name, part in parts.items()}
    task, folder = config["task"], next(iter(files.values())).parent
    if not (kept["test_split"] or kept["validation_split"] or evaluated in files):
        known = ", ".join(path.name for path in files.values())
        raise BadInput(
            f"{folder} has {known}, but task {task} is evaluated on {evaluated}; add {evaluated}.jsonl there"
        )
    shots = int(config.get("num_fewshot") or 0) if num_fewshot is None else num_fewshot
    if shots and len({part for part in kept.values() if part}) < 2:
        wanted = parts["fewshot_split"] or parts["training_split"] or parts["validation_split"] or "train"
        raise BadInput(
            f"task {task} with {shots} examples needs the part {wanted}, and only {next(iter(files.values()))} exists; "
            f"add {folder if folder.name == task else folder / task}/{wanted}.jsonl"
        )

    def read(**_: Any) -> Any:
        from datasets import Dataset

        rows = read_parts({part: files[part] for part in kept.values() if part}, str(config.get("dataset_path", "")))
        return {part: Dataset.from_list(each) for part, each in rows.items()}

    return {**config, **kept, "custom_dataset": read}


def read_parts(files: Mapping[str, Path], dataset: str) -> dict[str, list[Row]]:
    """The rows of each part. Raises BadInput for a row without the fields of the data set, and for an empty file."""
    adapt = ADAPTERS.get(dataset.rsplit("/", 1)[-1].lower(), lambda row: row)
    found = {}
    for part, path in files.items():
        found[part] = [_adapted(row, location, adapt) for location, row in read_rows(path)]
        if not found[part]:
            raise BadInput(f"{path} is empty; give one row per example")
    return found


def read_rows(path: Path) -> list[tuple[str, Row]]:
    """The rows of a file with their places: objects of jsonl; of a text file, each line that is not blank as "text"."""
    if content_suffix(path) == ".txt":
        lines = enumerate(read_lines(path, "strict", "utf-8"), start=1)
        return [(f"{path}, line {number:,}", {"text": line}) for number, line in lines if line.strip()]
    return [(location, values) for _, location, values in read_records(path, "strict", "utf-8", ReadNotes())]


def _adapted(row: Row, location: str, adapt: Callable[[Row], Row]) -> Row:
    try:
        return adapt(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fields = ", ".join(map(repr, row)) or "none"
        raise BadInput(f"{location} does not have the fields of this task ({error!r}); it has {fields}") from None


def adapt_arc(row: Row) -> Row:
    """An ARC question with its choices as lists of labels and texts; a question of the published files has a stem."""
    question, choices = row["question"], row.get("choices")
    if isinstance(question, dict):
        question, choices = question["stem"], question["choices"]
    if isinstance(choices, list):
        choices = {name: [str(each[name]) for each in choices] for name in ("text", "label")}
    if not isinstance(choices, dict):
        raise TypeError("choices")
    return {**row, "question": question, "choices": {name: choices[name] for name in ("text", "label")}}


def adapt_hellaswag(row: Row) -> Row:
    """A HellaSwag row with the context in two parts, as the task joins and cleans them itself.

    A row whose text is joined and cleaned already has it in "query" and "choices".
    """
    if "ctx_a" in row:
        return {**row, "label": str(row["label"])}
    activity, separator, context = str(row["query"]).partition(": ")
    label = row["gold"] if "gold" in row else row["label"]
    # The task writes "activity: ctx_a Ctx_b": with nothing in ctx_b it strips the space after ctx_a again.
    parts = {"activity_label": activity, "ctx_a": context, "ctx_b": ""} if separator else {}
    if not parts:
        raise ValueError("query has no 'ACTIVITY: '")
    return {**row, **parts, "endings": list(row["choices"]), "label": str(label)}


def adapt_piqa(row: Row) -> Row:
    """A PIQA row with its label as a number."""
    return {**{name: row[name] for name in ("goal", "sol1", "sol2")}, "label": int(row["label"])}


def adapt_lambada(row: Row) -> Row:
    """A LAMBADA passage."""
    return {"text": str(row["text"])}


ADAPTERS: dict[str, Callable[[Row], Row]] = {
    "ai2_arc": adapt_arc,
    "hellaswag": adapt_hellaswag,
    "piqa": adapt_piqa,
    "lambada": adapt_lambada,
    "lambada_openai": adapt_lambada,
}
"""How rows of published files become those of the data set that a task reads, by its name."""
