"""The public interface: what type checkers see, and errors for wrong names and types of arguments."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

import clearstory
from clearstory.errors import BadSetting, ClearstoryError, UnknownName
from clearstory.generation.settings import Sampling
from clearstory.models.lora_settings import LoRASettings
from clearstory.recipes.comparison.settings import CompareRecipe
from clearstory.recipes.settings import keywords
from clearstory.recipes.settings.arguments import check_arguments, describe_type, matches_type
from clearstory.recipes.settings.embedding import EmbeddingSettings
from clearstory.recipes.settings.evaluation_tasks import BenchmarkSettings
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.finetuning_steps import FinetuneTrainingSettings
from clearstory.recipes.settings.inference import InspectRecipe
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.prompting import PromptRecipe
from clearstory.recipes.settings.tools import DataRecipe, PlanRecipe
from clearstory.recipes.settings.training import TrainRecipe
from clearstory.recipes.settings.translation import TranslationSettings
from clearstory.text.settings import DataSettings
from clearstory.training.settings import TrainingSettings

ROOT = Path(__file__).parent.parent

USER_FILE = """\
import clearstory

reveal_type(clearstory.train("a.txt", model="clear", steps=2, training={"batch_size": 2}))
reveal_type(clearstory.generate("m", ["Once", "Twice"], max_tokens=3).text)
reveal_type(clearstory.evaluate("m", "a.txt").bits_per_byte)
reveal_type(clearstory.compare("a.txt", models=("ngram", "clear"), cpu_seconds=60))
reveal_type(clearstory.inspect("m", "a", "next-token", top=3))
reveal_type(clearstory.convert("m", "m.gguf", dtype="q8_0"))
reveal_type(clearstory.plan("gpt2", measure=False).parameters)
reveal_type(clearstory.data("a.txt", tokenizer="bytes").tokens)
reveal_type(clearstory.doctor(measure=False))
reveal_type(clearstory.open("m"))
reveal_type(clearstory.fill_mask("m", "a [MASK]."))
reveal_type(clearstory.embed("m", "a").texts)
reveal_type(clearstory.classify("m", "a"))
reveal_type(clearstory.translate("m", "a").texts)
reveal_type(clearstory.tag("m", "a").tags)
reveal_type(clearstory.finetune("m", "a.csv", seeds=3).metrics)
clearstory.generate("m", 3, max_toknes=8)
clearstory.train("a.txt", trainig={"batch_size": 2})
clearstory.train("a.txt", training={"batch_sise": 2})
clearstory.compare("a.txt", seeds="many")
clearstory.evaluate("m", "a.txt", windows="stridden")
clearstory.plan("gpt2", device=3)
clearstory.genrate("m")
"""

ERRORS = [
    (19, 'Unexpected keyword argument "max_toknes" for "generate"'),
    (19, 'Argument 2 to "generate" has incompatible type "int"'),
    (20, 'Unexpected keyword argument "trainig" for "train"'),
    (21, 'Extra key "batch_sise" for TypedDict "TrainingKeywords"'),
    (22, 'Argument "seeds" to "compare" has incompatible type "str"'),
    (23, 'No overload variant of "evaluate" matches argument types'),
    (24, 'Unexpected keyword argument "device" for "plan"'),
    (25, 'Module has no attribute "genrate"'),
]


def test_type_checkers_see_the_public_functions(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER_FILE)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    # A cache of its own in the repository: a first run takes 15 CPU seconds, later ones two.
    cache = os.environ.get("MYPY_CACHE_DIR", str(ROOT / ".mypy_cache" / "public_api"))
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", cache, "user.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    lines = [re.match(r"user\.py:(\d+): (error|note): (.*)", line) for line in result.stdout.splitlines()]
    found = [(int(line[1]), line[2], line[3]) for line in lines if line is not None]
    errors = [(number, message) for number, kind, message in found if kind == "error"]
    assert len(errors) == len(ERRORS), errors
    for (number, message), (expected_number, expected) in zip(errors, ERRORS, strict=True):
        assert number == expected_number
        assert message.startswith(expected)
    revealed = [(number, message) for number, _, message in found if message.startswith("Revealed type is")]
    assert [number for number, _ in revealed] == list(range(3, 19))
    assert not [message for _, message in revealed if re.search(r"\bAny\b", message)]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: clearstory.doctor(3), "too many positional arguments; its arguments are measure"),  # type: ignore[call-arg]
        (lambda: clearstory.train("a", text="b"), "multiple values for argument 'text'; give it once"),  # type: ignore[call-arg]
        (lambda: clearstory.generate(), "missing a required argument: 'model'"),  # type: ignore[call-arg]
        (lambda: clearstory.inspect("m", "a", top="many"), "top is 'many'; it must be an integer"),  # type: ignore[arg-type]
        (
            lambda: clearstory.inspect("m", "a", "logit-attribution", words=3),
            "words is 3; it must be text or a sequence of text",
        ),  # type: ignore[arg-type]
        (lambda: clearstory.inspect("m", "a", temperature=10**400), "it must be a number"),
        (lambda: clearstory.inspect("m", "a", topp=3), "did you mean 'top'?"),  # type: ignore[call-arg]
        (lambda: clearstory.train("a", training={"batch_sise": 2}), "did you mean 'training.batch_size'?"),  # type: ignore[typeddict-unknown-key]
        (lambda: clearstory.evaluate("m", "a", windowz="blocks"), "did you mean 'windows'?"),  # type: ignore[call-arg]
    ],
)
def test_wrong_calls_end_in_a_sentence(call: Any, says: str) -> None:
    with pytest.raises(ClearstoryError, match=re.escape(says)):
        call()


def test_all_names_what_there_is() -> None:
    assert sorted(clearstory.__all__) == sorted(["__version__", *clearstory.FUNCTIONS, *clearstory.TYPES])
    for name in clearstory.__all__:
        assert getattr(clearstory, name) is not None
    assert set(clearstory.__all__) <= set(dir(clearstory))
    with pytest.raises(AttributeError, match="has no attribute 'genrate'"):
        clearstory.genrate  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: clearstory.generate("m", max_toknes=8),
            UnknownName,
            "generate has no argument called 'max_toknes'; did",
        ),
        (
            lambda: clearstory.generate("m", 3),
            BadSetting,
            "prompt of generate is 3; it must be text or a sequence of text",
        ),
        (
            lambda: clearstory.generate("m", "a", device=0),
            BadSetting,
            "device of generate is 0; it must be text or None",
        ),
        (
            lambda: clearstory.train("a.txt", stepss=3),
            UnknownName,
            "no argument called 'stepss'; did you mean 'steps'?",
        ),
        (
            lambda: clearstory.train("a.txt", training={"batch_sise": 2}),
            UnknownName,
            "no setting called 'training.batch_sise'; did you mean 'training.batch_size'?",
        ),
        (lambda: clearstory.train("a.txt", steps="many"), BadSetting, "steps is 'many'; it must be an integer"),
        (lambda: clearstory.evaluate("m", "a.txt", windows="no"), BadSetting, "it must be 'strided' or 'blocks'"),
        (lambda: clearstory.embed("m", "a", polling="cls"), UnknownName, "did you mean 'pooling'?"),
        (lambda: clearstory.fill_mask("m", "a [MASK]", top="five"), BadSetting, "top of fill_mask is 'five'"),
        (lambda: clearstory.compare("a.txt", model=("ngram",)), UnknownName, "did you mean 'models'?"),
        (
            lambda: clearstory.open("m", dtipe=None),
            UnknownName,
            "open has no argument called 'dtipe'; did you mean 'dtype'?",
        ),
        (lambda: clearstory.plan("gpt2", meassure=False), UnknownName, "did you mean 'measure'?"),
        (lambda: clearstory.doctor(measure="yes"), BadSetting, "measure of doctor is 'yes'; it must be True or False"),
        (lambda: clearstory.inspect("m", "a", top=3, viw="heads"), UnknownName, "did you mean 'view'?"),
    ],
)
def test_wrong_arguments_name_the_remedy(call: Any, error: type[ClearstoryError], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_dotted_settings_are_arguments_too() -> None:
    found = clearstory.data("corpus:python-docs", show=0, **{"data.validation": 0.5})  # type: ignore[arg-type]
    assert abs(found.split_bytes["train"] - found.split_bytes["validation"]) < 0.1 * found.bytes


KEYWORDS: list[tuple[type[Any], type[Any], set[str]]] = [
    (keywords.SamplingKeywords, Sampling, {"logit_bias"}),
    (keywords.TranslationKeywords, TranslationSettings, set()),
    (keywords.EmbeddingKeywords, EmbeddingSettings, set()),
    (keywords.DataKeywords, DataSettings, set()),
    (keywords.LoRAKeywords, LoRASettings, set()),
    (keywords.TrainingKeywords, TrainingSettings, set()),
    (keywords.TrainKeywords, TrainRecipe, {"text"}),
    (keywords.PromptKeywords, PromptRecipe, {"model", "template", "examples"}),
    (keywords.BenchmarkKeywords, BenchmarkSettings, set()),
    (keywords.FinetuneTrainingKeywords, FinetuneTrainingSettings, set()),
    (keywords.FinetuneKeywords, FinetuneRecipe, {"model", "data"}),
    (keywords.CompareKeywords, CompareRecipe, {"sources"}),
    (keywords.PlanKeywords, PlanRecipe, {"model"}),
    (keywords.DataReportKeywords, DataRecipe, {"text"}),
    (
        keywords.InspectKeywords,
        InspectRecipe,
        {"model", "text", "prompting", "view", "out", "device", "across_checkpoints", "compare_model", "compare_text"},
    ),
]
"""Keyword types with their settings, and the fields that are parameters of the function instead."""


@pytest.mark.parametrize(
    ("typed_dict", "settings", "parameters"), KEYWORDS, ids=lambda each: getattr(each, "__name__", "")
)
def test_keyword_types_are_those_of_the_settings(
    typed_dict: type[Any], settings: type[Any], parameters: set[str]
) -> None:
    hints, field_hints, names = typing.get_type_hints(typed_dict), typing.get_type_hints(settings), []
    for field in dataclasses.fields(settings):
        section = field_hints[field.name]
        if field.metadata.get("inline") and field.name not in parameters:  # its fields keep their plain names
            field_hints |= typing.get_type_hints(section)
            names += [inner.name for inner in dataclasses.fields(section)]
        else:
            names.append(field.name)
    assert [*hints] == [name for name in names if name not in parameters]
    for name, hint in hints.items():
        inner = plain_types(field_hints[name])
        assert inner - {type(None)} <= plain_types(hint), f"{typed_dict.__name__}.{name}"


def plain_types(hint: Any) -> set[Any]:
    """The types that a hint consists of, in a form that both kinds of hints share."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return set().union(*(plain_types(each) for each in typing.get_args(hint)))
    if typing.get_origin(hint) is Literal:
        return set(typing.get_args(hint))
    if typing.get_origin(hint) in (tuple, Sequence):
        return {("sequence", typing.get_args(hint)[0])}
    if hint is ModelChoice:
        return {str}
    if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
        return {"nested"}
    return {hint}


def test_arguments_are_checked_by_their_types() -> None:
    assert matches_type(1, float)
    assert not matches_type(True, int)
    assert matches_type(("a", "b"), str | Sequence[str])
    assert not matches_type([1], Sequence[str])
    assert matches_type(None, Path | None)
    assert describe_type(Literal["left", "right"] | None) == "'left' or 'right' or None"

    def double(number: float, /, *, times: int = 2) -> float:
        return number * times

    checked = check_arguments(double)
    assert checked(1.5, times=4) == 6
    with pytest.raises(BadSetting, match="number of double is 'one'; it must be a number"):
        checked("one")  # type: ignore[arg-type]


def test_results_are_html_in_notebooks() -> None:
    from clearstory.metrics import Score
    from clearstory.recipes.comparison.leaderboard import Leaderboard, LeaderboardEntry, ModelResult
    from clearstory.recipes.comparison.report import setup_text

    completion = clearstory.Completion(prompt="<a", text=" & b\nc", ids=(1,), logprobs=(-1.0,), finished="length")
    generation = clearstory.Generation(completions=(completion, completion), seconds=1.0)
    assert generation._repr_html_().count("<b>&lt;a</b> &amp; b\nc</p>") == 2
    evaluation = clearstory.Evaluation(
        score=Score(nats=8.0, tokens=4, bytes=8), documents=1, windows="blocks", stride=8, context=8, unknown=0,
        lossless=True, seconds=0.1,
    )  # fmt: skip
    assert "<td>bits per byte</td><td>1.443</td>" in evaluation._repr_html_()  # 8 / ln 2 / 8
    assert "<td>nats per token</td><td>2</td>" in evaluation._repr_html_()
    result = ModelResult(model="<clear>", family="Transformer", parameters=1_234_567, cpu_seconds=60.0, error="a & b")
    entry = LeaderboardEntry(result=result, bits_per_byte=2.5, interval=(2.4, 2.6), seeds=(result,), nats=None)
    leaderboard = Leaderboard(
        text="t", bytes=1, unit="document", units=1, trained_on=None, budget="", prompt="", entries=(entry,), pairs=(),
        command="", machine={}, folder=Path(),
    )  # fmt: skip
    assert "The text is too short for intervals." in setup_text(leaderboard)  # it is one unit
    html = leaderboard._repr_html_()
    assert "<td>&lt;clear&gt;</td><td>2.5</td><td>2.400 to 2.600</td><td>1,234,567</td><td>60</td>" in html
    assert "a &amp; b" in html
    assert html.startswith("<table><tr><th>model</th>")
