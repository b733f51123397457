"""lm-evaluation-harness: our model beside its own `hf` model on the same folders, and its tasks on local files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="the extra eval is not installed")

from clearstory.errors import BadInput, BadSetting, UnknownName
from clearstory.formats.folders import open_model
from clearstory.recipes.inference.evaluate import evaluate
from clearstory.recipes.inference.evaluate_harness import offline
from clearstory.recipes.inference.harness_files import adapt_arc, adapt_hellaswag

pytestmark = pytest.mark.slow  # the harness and what it imports take seconds

GOLDEN = Path(__file__).parent.parent / "golden"

PAIRS = [
    ("the cat", " sat on"),
    ("the cat", " sat"),
    ("the cat ", "sat"),
    ("", "the dog sat"),
    ("a dog on the mat. " * 30, "the cat sat"),
    ("the", " end"),
]


def instances(*arguments: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=each, task_name="task") for each in arguments]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), offline(True):
        warnings.simplefilter("ignore")  # of the harness and of the libraries that it imports
        yield


def both(folder: Path, **settings: Any) -> tuple[Any, Any]:
    from lm_eval.models.huggingface import HFLM

    from clearstory.recipes.inference.lm_eval_model import ClearstoryLM

    theirs = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=2, **settings)
    return theirs, ClearstoryLM(folder)


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "GPT2LMHeadModel"])
def test_every_number_is_that_of_the_harness_hf_model(name: str) -> None:
    theirs, ours = both(GOLDEN / name)
    for (nats, greedy), (own, own_greedy) in zip(
        theirs.loglikelihood(instances(*PAIRS)), ours.loglikelihood(instances(*PAIRS)), strict=True
    ):
        assert own == pytest.approx(nats, abs=1e-4)
        assert own_greedy == greedy
    texts = instances(("the cat sat on the mat. " * 40,), ("a dog",))
    assert ours.loglikelihood_rolling(texts) == pytest.approx(theirs.loglikelihood_rolling(texts), abs=1e-3)
    until = instances(
        *((text, {"until": ["\n\n"], "max_gen_toks": 6, "do_sample": False}) for text in ("the", "a dog"))
    )
    assert ours.generate_until(until) == theirs.generate_until(until)


def test_an_encoder_decoder_is_asked_as_the_harness_asks() -> None:
    theirs, ours = both(GOLDEN / "T5ForConditionalGeneration", backend="seq2seq")
    pairs = instances(*(pair for pair in PAIRS if pair[0] and len(pair[0]) < 100))
    found = ours.loglikelihood(pairs)
    for (nats, greedy), (own, own_greedy) in zip(theirs.loglikelihood(pairs), found, strict=True):
        assert own == pytest.approx(nats, abs=1e-4)
        assert own_greedy == greedy


def write(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two questions of ARC-easy, and two minimal pairs."""
    choices = [{"label": label, "text": text} for label, text in zip("AB", ("a cat", "the mat"), strict=True)]
    arc = [{"id": "1", "question": f"the {word}", "choices": choices, "answerKey": "A"} for word in ("dog", "cat")]
    write(tmp_path, "arc_easy.jsonl", *arc)
    pair = {"sentence_good": "the cat sat.", "sentence_bad": "the cat sit."}
    write(tmp_path, "blimp_anaphor_gender_agreement.jsonl", pair, pair)
    (tmp_path / "lambada_openai.txt").write_text("the cat sat on the mat\na dog\n")
    return tmp_path


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "lstm", "ngram"])
def test_tasks_are_read_from_local_files(name: str, files: Path, tmp_path: Path) -> None:
    found: Any = evaluate(
        GOLDEN / name,
        task="lm-eval:arc_easy,blimp_anaphor_gender_agreement,lambada_openai",
        task_files=files,
        log_samples=True,
        out=tmp_path / "out",
        limit=2,
        bootstrap_iters=10,
    )
    metrics = {(each.task, each.metric): each for each in found.metrics}
    assert {metric for task, metric in metrics if task == "arc_easy"} == {"acc", "acc_norm"}
    assert metrics["arc_easy", "acc"].examples == 2
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["results"]["arc_easy"]["acc,none"] == metrics["arc_easy", "acc"].value
    lines = (tmp_path / "out" / "samples_arc_easy.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["arguments"][0][0] == "Question: the dog\nAnswer:"


def test_examples_before_each_question_come_from_the_training_part(files: Path, tmp_path: Path) -> None:
    model = open_model(GOLDEN / "GPT2LMHeadModel")
    with pytest.raises(BadInput, match=r"with 1 examples needs the part train.*add .*arc_easy.train\.jsonl"):
        evaluate(model, task="lm-eval:arc_easy", task_files=files, num_fewshot=1)
    rows = [json.loads(line) for line in (files / "arc_easy.jsonl").read_text().splitlines()]
    write(files / "more", "arc_easy/train.jsonl", *rows)
    write(files / "more", "arc_easy/test.jsonl", *rows)
    evaluate(
        model, task="lm-eval:arc_easy", task_files=files / "more", num_fewshot=1, log_samples=True, out=tmp_path / "o"
    )
    sample = json.loads((tmp_path / "o" / "samples_arc_easy.jsonl").read_text().splitlines()[0])
    assert sample["arguments"][0][0].count("Question:") == 2


def test_what_cannot_be_evaluated_is_told_with_the_way_out(files: Path, cli: Callable[..., Any]) -> None:
    folder = GOLDEN / "GPT2LMHeadModel"

    def last(*words: Any) -> str:
        answer = cli("evaluate", folder, *words)
        assert answer.status
        return str(answer.last)

    assert "did you mean arc_easy" in last("--task", "lm-eval:arc_eas", "--task-files", files)
    assert "put piqa.jsonl into" in last("--task", "lm-eval:piqa", "--task-files", files)
    assert "set it with --task-files" in last("a.txt", "--task", "lm-eval:piqa")
    assert "such as lm-eval:arc_easy" in last("--task", "lm-eval")
    assert "only to task lm-eval" in last("a.txt", "--num-fewshot", "2")
    (files / "arc_easy.jsonl").write_text('{"question": "a"}\n')
    assert "line 1 does not have the fields of this task" in last("--task", "lm-eval:arc_easy", "--task-files", files)


def test_settings_of_texts_are_refused_by_python_too(tmp_path: Path) -> None:
    for setting in ({"int8": True}, {"precision": "fp16"}, {"windows": "blocks"}, {"stride": 3}):
        for task in ("lm-eval:arc_easy", "probes"):
            with pytest.raises(BadSetting, match=f"{next(iter(setting))} does not apply to task {task}"):
                evaluate(GOLDEN / "LlamaForCausalLM", task=task, **setting)  # type: ignore[call-overload]


def test_git_is_silent_outside_a_repository(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate(GOLDEN / "LlamaForCausalLM", task="lm-eval:arc_easy", task_files=files, limit=1, bootstrap_iters=0)
    assert "git" not in capfd.readouterr().err


def test_published_rows_become_those_of_the_data_sets() -> None:
    published = {"question": {"stem": "a?", "choices": [{"text": "b", "label": "A"}]}, "answerKey": "A"}
    assert adapt_arc(published)["choices"] == {"text": ["b"], "label": ["A"]}
    row = adapt_hellaswag({"query": "Cooking: A man", "choices": ["a", "b"], "gold": 1})
    assert (row["activity_label"], row["ctx_a"], row["ctx_b"], row["label"]) == ("Cooking", "A man", "", "1")


def test_chat_templates_are_rendered_as_transformers_does() -> None:
    from clearstory.recipes.inference.lm_eval_model import ClearstoryLM

    opened = open_model(GOLDEN / "GPT2LMHeadModel")
    opened.tokenizer.config["chat_template"] = (  # type: ignore[union-attr]  # the folder has a tokenizer
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<bot>{% endif %}"
    )
    model = ClearstoryLM(opened)
    history = [{"role": "user", "content": "Hi"}]
    assert model.apply_chat_template(history) == "<user>Hi\n<bot>"
    assert model.apply_chat_template([*history, {"role": "bot", "content": "So"}], False) == "<user>Hi\n<bot>So"
    assert model.chat_template(True)
    assert model.chat_template(False) is None
    with pytest.raises(UnknownName, match="no task called 'lm-evil'"):
        evaluate(opened, task="lm-evil:arc_easy")


def test_contexts_can_be_messages_of_a_chat(files: Path, tmp_path: Path) -> None:
    opened = open_model(GOLDEN / "GPT2LMHeadModel")
    opened.tokenizer.config["chat_template"] = "{% for m in messages %}the {{ m.content }}{% endfor %}"  # type: ignore[union-attr]  # it has one
    evaluate(
        opened,
        task="lm-eval:arc_easy",
        task_files=files,
        limit=1,
        apply_chat_template=True,
        log_samples=True,
        out=tmp_path / "out",
    )
    sample = json.loads((tmp_path / "out" / "samples_arc_easy.jsonl").read_text().splitlines()[0])
    assert sample["arguments"][0][0].startswith("the Question:")
