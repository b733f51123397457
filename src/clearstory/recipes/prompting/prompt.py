"""Prompt: zero-shot and few-shot prompting of a task, measured by the number of examples in the prompt."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from clearstory.durable import replace_files
from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.evaluation.continuations import ContinuationScorer
from clearstory.formats.output_folder import check_writable
from clearstory.models.capabilities import Capability, require
from clearstory.models.prompts import PromptOptions, find_start_token_id, is_chat
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer
from clearstory.recipes.prompting.answers import Answer, LikelihoodAnswers, choose, generate_answers
from clearstory.recipes.prompting.examples import PromptData, PromptExample, read_prompt_data
from clearstory.recipes.prompting.prompts import PromptMaker
from clearstory.recipes.prompting.report import PromptReport, PromptScore, baselines, report_page
from clearstory.recipes.prompting.template import PromptTemplate
from clearstory.recipes.settings.keywords import PromptKeywords
from clearstory.recipes.settings.prompting import PromptRecipe
from clearstory.recipes.settings.schema import build_settings


def prompt(
    model: str | Path | ModelWithTokenizer,
    template: str,
    examples: str | Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    **settings: Unpack[PromptKeywords],
) -> PromptReport:
    """Evaluate the accuracy of few-shot prompting for several numbers of examples.

    Examples are sampled by seed from the training part; samples of one seed are nested. An answer is the candidate with
    the largest likelihood, or the candidate at the start of the generated text.

    Args:
        model: a model folder, run folder, checkpoint or .gguf file, or a loaded model.
        template: text of one example, or a file with it, with {label} in place of the answer.
        examples: file with labeled texts, or with questions and their choices.
        on_progress: called with the number of finished rows and of all rows.
        settings: fields of PromptRecipe, such as `shots`, `draws` and `calibrate`.

    Raises BadInput for data that cannot be read, UnknownName for a field that is not in the data, ContextOverflow
    for examples that do not fit the context.

    >>> import clearstory
    >>> clearstory.prompt("models/smollm2", "{text} It was {label}.", "reviews.csv", shots=(0, 4))  # doctest: +SKIP
    """
    path = model if isinstance(model, str | Path) else "model"
    given: dict[str, Any] = {"model": str(path), "template": template, "examples": str(examples), **settings}
    if "test" in given:
        given["test"] = str(given["test"])
    return run_prompt(build_settings(PromptRecipe, given), model, on_progress)


def run_prompt(
    recipe: PromptRecipe,
    model: str | Path | ModelWithTokenizer,
    on_progress: Callable[[int, int], None] | None = None,
) -> PromptReport:
    """The report of a recipe, written to its output folder where it names one."""
    folder = None if recipe.out is None else expand_home(recipe.out)
    if folder is not None:
        check_writable(folder, overwrite=False)
    template = PromptTemplate.open(recipe.template)
    data = read_prompt_data(recipe.examples, recipe.test, recipe.reading(), recipe.labels, recipe.limit, recipe.seed)
    template.check(data.fields)
    if recipe.calibrate and not data.labels:
        raise BadSetting("calibrate needs labels that all rows share, but each question has its own choices")
    if max(recipe.shots) > len(data.shown):
        raise BadInput(
            f"{max(recipe.shots)} examples are needed for the prompt, but {recipe.examples} has {len(data.shown):,} "
            "training examples; give fewer with --shots, or more examples"
        )
    if recipe.show_prompt is not None and recipe.show_prompt > len(data.test):
        raise BadSetting(f"show_prompt is {recipe.show_prompt:,}, but there are {len(data.test):,} rows")
    maker = prompt_maker(model, template, recipe)
    started = time.perf_counter()
    scores, records = [], []
    for score, answers in iter_draws(maker, data, recipe, on_progress):
        scores.append(score)
        records += [record_of(score, row, answer) for row, answer in zip(data.test, answers, strict=True)]
    chance, majority = baselines(data)
    row = data.test[(recipe.show_prompt or 1) - 1]
    report = PromptReport(
        scores=tuple(scores),
        rows=len(data.test),
        chance=chance,
        majority=majority,
        data=data.name,
        prompt=maker.text(draw(data, max(recipe.shots), recipe.seed, 0), row),
        notes=data.notes,
        seconds=time.perf_counter() - started,
    )
    if folder is not None:
        write_report(folder, recipe, report, records)
    return report


def prompt_maker(model: str | Path | ModelWithTokenizer, template: PromptTemplate, recipe: PromptRecipe) -> PromptMaker:
    """Makes prompts for a model, in its chat template where it has one. Raises CannotDo for one that is not causal."""
    network, tokenizer = load_model_and_tokenizer(model, recipe.device)
    require(network, Capability.CAUSAL)
    chat = is_chat(network, tokenizer, PromptOptions(raw=recipe.raw))
    if recipe.system is not None and not chat:
        raise CannotDo("this model has no chat template, so a system message cannot be given; leave it out")
    separator = recipe.separator.replace("\\n", "\n").replace("\\t", "\t")
    return PromptMaker(network, tokenizer, template, separator, chat, recipe.system)


def iter_draws(
    maker: PromptMaker,
    data: PromptData,
    recipe: PromptRecipe,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[PromptScore, list[Answer]]]:
    """The accuracy of each draw of each number of examples, with the answers; twice where they are calibrated too.

    Without examples there is nothing to draw: one draw.
    """
    config: Any = getattr(maker.model, "config", None)
    start = find_start_token_id(config, maker.tokenizer)
    likelihood = None
    if recipe.answer == "likelihood":
        likelihood = LikelihoodAnswers(maker, ContinuationScorer(maker.model, start), recipe.normalize == "characters")
    pairs = [(shots, number) for shots in recipe.shots for number in range(recipe.draws if shots else 1)]
    total = len(pairs) * len(data.test)
    for at, (count, number) in enumerate(pairs):
        shots = draw(data, count, recipe.seed, number)

        def progress(done: int, before: int = at * len(data.test)) -> None:
            if on_progress is not None:
                on_progress(before + done, total)

        if likelihood is None:
            answers = generate_answers(maker, shots, data.test, recipe.max_tokens, progress)
            yield scored("generated", count, number, data, answers), answers
            continue
        found = likelihood.scores(shots, data.test, progress)
        answers = choose(found)
        yield scored("likelihood", count, number, data, answers), answers
        if recipe.calibrate:
            answers = choose(found, likelihood.label_bias(shots, data.test[0]))
            yield scored("calibrated", count, number, data, answers), answers


def draw(data: PromptData, count: int, seed: int, number: int) -> Sequence[PromptExample]:
    """The first `count` examples of the order that a draw puts them in: smaller numbers are the beginning of larger."""
    order = random.Random(f"{seed} shots {number}").sample(range(len(data.shown)), len(data.shown))
    return [data.shown[index] for index in order[:count]]


def scored(way: str, shots: int, number: int, data: PromptData, answers: Sequence[Answer]) -> PromptScore:
    """The accuracy of answers."""
    right = sum(answer.chosen == row.answer for answer, row in zip(answers, data.test, strict=True))
    unanswered = sum(answer.chosen is None for answer in answers)
    return PromptScore(way, shots, number, right / len(answers), unanswered)


def record_of(score: PromptScore, row: PromptExample, answer: Answer) -> dict[str, Any]:
    """One line of predictions.jsonl."""
    chosen = None if answer.chosen is None else row.candidates[answer.chosen]
    found = {"answers": score.answers, "shots": score.shots, "draw": score.draw, "location": row.location}
    found |= {"label": row.label, "predicted": chosen, "right": answer.chosen == row.answer}
    return found | ({"text": answer.text} if score.answers == "generated" else {"scores": list(answer.scores)})


def write_report(folder: Path, recipe: PromptRecipe, report: PromptReport, records: Sequence[dict[str, Any]]) -> None:
    """Write report.json, report.html and predictions.jsonl."""
    from clearstory.recipes.settings.schema import to_plain

    folder.mkdir(parents=True, exist_ok=True)
    values = {"settings": to_plain(replace(recipe, out=None)), **report.to_json()}
    contents = {
        "report.json": json.dumps(values, indent=2, ensure_ascii=False) + "\n",
        "report.html": report_page(f"{Path(recipe.model).name} on {report.data}", report),
        "predictions.jsonl": "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records),
    }
    replace_files(folder, {name: text.encode() for name, text in contents.items()})
