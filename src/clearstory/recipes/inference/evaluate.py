"""Evaluate: evaluation of models on text, labeled examples, data sets for vectors, and benchmarks.

Each kind of evaluation has its own file; this one selects among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Unpack, overload

from clearstory.errors import BadSetting
from clearstory.evaluation.windows import WindowMode
from clearstory.models.precision import Precision, resolve_precision
from clearstory.recipes.inference.encoder_evaluation import EncoderEvaluation
from clearstory.recipes.inference.evaluate_harness import HarnessEvaluation
from clearstory.recipes.inference.model_argument import ModelWithTokenizer
from clearstory.recipes.inference.probe_scores import ProbeEvaluation
from clearstory.recipes.inference.text_evaluation import Evaluation as Evaluation
from clearstory.recipes.inference.vector_scores import VectorEvaluation
from clearstory.recipes.settings.evaluation_tasks import HARNESS, PROBES, BenchmarkSettings, harness_tasks
from clearstory.recipes.settings.keywords import BenchmarkKeywords
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.settings.vector_tasks import LABELED_TASKS, check_text_settings, vector_tasks
from clearstory.tasks.chat_settings import ChatSettings
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.evaluation import TaskEvaluation
from clearstory.tasks.text_to_text_settings import TextToTextSettings
from clearstory.text.settings import ReadSettings


@overload
def evaluate(
    model: str | Path | ModelWithTokenizer,
    sources: str | Path | Sequence[str | Path] = (),
    *,
    texts: Sequence[str] | None = None,
    windows: WindowMode = "strided",
    stride: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    data: ReadSettings | None = None,
    precision: Precision = "auto",
    int8: bool = False,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation | EncoderEvaluation: ...


@overload
def evaluate(
    model: str | Path | ModelWithTokenizer,
    sources: str | Path | Sequence[str | Path] = (),
    *,
    task: str | Sequence[str],
    vectors: Literal["input", "sentence"] | None = None,
    device: str | None = None,
) -> VectorEvaluation: ...


@overload
def evaluate(
    model: str | Path | ModelWithTokenizer,
    *,
    task: str | Sequence[str],
    limit: int | None = None,
    batch_size: int = 8,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    **benchmarks: Unpack[BenchmarkKeywords],
) -> HarnessEvaluation | ProbeEvaluation: ...


@overload
def evaluate(
    model: str | Path | ModelWithTokenizer,
    sources: str | Path | Sequence[str | Path] = (),
    *,
    task: Literal["classify", "pairs", "tag", "embed", "translate", "summarize", "chat"],
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    truncate: Literal["left", "right", "source-left", "source-right"] | None = None,
    stride: int | None = None,
    assistant_only_loss: bool = True,
    chat_template: str | None = None,
    num_beams: int | None = None,
    length_penalty: float | None = None,
    max_target_length: int | None = None,
    prompt_template: str | None = None,
    device: str | None = None,
) -> TaskEvaluation: ...


def evaluate(
    model: str | Path | ModelWithTokenizer,
    sources: str | Path | Sequence[str | Path] = (),
    *,
    task: str | Sequence[str] = "text",
    vectors: Literal["input", "sentence"] | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    truncate: Literal["left", "right", "source-left", "source-right"] | None = None,
    assistant_only_loss: bool = True,
    chat_template: str | None = None,
    num_beams: int | None = None,
    length_penalty: float | None = None,
    max_target_length: int | None = None,
    prompt_template: str | None = None,
    texts: Sequence[str] | None = None,
    windows: WindowMode = "strided",
    stride: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    data: ReadSettings | None = None,
    precision: Precision = "auto",
    int8: bool = False,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    **benchmarks: Unpack[BenchmarkKeywords],
) -> Evaluation | EncoderEvaluation | VectorEvaluation | TaskEvaluation | HarnessEvaluation | ProbeEvaluation:
    """Evaluate a model on the text of `sources`, or `texts`; or, with `task`, on labeled examples, data sets for
    vectors, or benchmarks.

    A document that exceeds the context is evaluated in windows. Each document is preceded by the start token, so that
    its first token is predicted as well; without a start token, first tokens are excluded. The end token of each
    document is predicted as well.

    Args:
        model: a model folder, run folder, checkpoint or .gguf file, or a loaded model.
        sources: files, folders, globs or corpora.
        task: "text"; "classify", "pairs", "tag", "embed", "translate", "summarize", "chat" or "choose", with `sources`
            of examples; or tasks that compare vectors, such as "similarity:FILE", "analogy:FILE" and "weat:FILE"; or
            "lm-eval:NAME,NAME", tasks of lm-evaluation-harness, whose data is in the folder `task_files`; or "probes",
            in the folder `probe_files`.
        vectors: vectors to compare: "input" embeddings, or "sentence" vectors as in `embed`; default: sentence vectors
            for texts of several words, and if the model's folder defines a pooling.
        text_column, pair_column, label_column: columns of labeled examples; default: found by their usual names.
        truncate: end to drop of a labeled text that exceeds the context.
        num_beams, length_penalty, max_target_length, prompt_template: generation of targets (tasks "translate" and
            "summarize"); default: the settings in the model's folder.
        assistant_only_loss, chat_template: scored tokens of conversations, and their template (task "chat").
        texts: texts to evaluate instead of `sources`.
        windows: "strided", overlapping windows in which every token has at least half a context before it, or "blocks".
        stride: tokens between the starts of two strided windows; default: half the context. Labeled texts are split
            into windows only if it is given.
        batch_size: windows per batch.
        limit: approximate number of tokens to evaluate; for benchmarks, number of examples of each.
        data: settings for reading files.
        precision: precision of the weights: fp32, fp16, bf16, int8, int4, or auto (unchanged).
        int8: same as precision int8.
        device: cpu, cuda, mps or auto.
        on_progress: called with the number of processed tokens (for benchmarks, requests) and the number of all.
        benchmarks: fields of BenchmarkSettings, such as `task_files` and `num_fewshot`.

    Raises BadInput for text that cannot be read or is too short, BadSetting for impossible windows.
    """
    paths = [sources] if isinstance(sources, str | Path) else sources
    tasks = [task] if isinstance(task, str) else list(task)
    settings = build_settings(BenchmarkSettings, benchmarks)
    harness = harness_tasks(tasks)
    chat = ChatSettings(assistant_only_loss=assistant_only_loss, chat_template=chat_template)
    chat.check_used(tasks[0])
    text_to_text = TextToTextSettings(
        num_beams=num_beams,
        length_penalty=length_penalty,
        max_target_length=max_target_length,
        prompt_template=prompt_template,
    )
    text_to_text.check_used(tasks[0])
    settings.check_used(HARNESS if harness else ", ".join(tasks))
    given = {"windows": windows, "stride": stride, "batch_size": batch_size, "limit": limit}
    check_text_settings(tasks, {**given, "precision": precision, "int8": int8})
    if harness:
        from clearstory.recipes.inference.evaluate_harness import evaluate_harness

        return evaluate_harness(
            model, harness, settings, limit=limit, batch_size=batch_size, device=device, on_progress=on_progress
        )
    if tasks == [PROBES]:
        from clearstory.recipes.inference.evaluate_probes import evaluate_probes

        return evaluate_probes(model, settings, limit=limit, device=device, on_progress=on_progress)
    if len(tasks) == 1 and tasks[0] in LABELED_TASKS:
        from clearstory.recipes.inference.evaluate_task import evaluate_on_task

        columns = LabelSettings(text_column=text_column, pair_column=pair_column, label_column=label_column)
        files = list(map(str, paths))
        return evaluate_on_task(
            model,
            files,
            tasks[0],
            reading=columns,
            truncate=truncate,
            stride=stride,
            chat=chat,
            text_to_text=text_to_text,
            device=device,
        )
    if tasks != ["text"]:
        return evaluate_task_of_vectors(model, tasks, paths, vectors, device)
    from clearstory.recipes.inference.evaluate_text import evaluate_text

    return evaluate_text(
        model,
        paths,
        texts,
        windows=windows,
        stride=stride,
        batch_size=batch_size,
        limit=limit,
        data=data,
        precision=resolve_precision(precision, int8),
        device=device,
        on_progress=on_progress,
    )


def evaluate_task_of_vectors(
    model: str | Path | ModelWithTokenizer,
    named: Sequence[str],
    sources: Sequence[str | Path],
    vectors: Literal["input", "sentence"] | None,
    device: str | None,
) -> VectorEvaluation:
    """The scores of a model's vectors on the named tasks. Raises BadSetting for one that does not compare vectors."""
    from clearstory.recipes.inference.evaluate_vectors import evaluate_vectors

    tasks = vector_tasks(named, map(str, sources))
    if not tasks:
        raise BadSetting(f"task is {', '.join(named)}; give tasks that compare vectors, such as similarity:FILE")
    return evaluate_vectors(model, tasks, vectors=vectors, device=device)
