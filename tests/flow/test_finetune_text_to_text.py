"""Translate and summarize end to end: trained on pairs, scored by their texts, saved, and answering."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import TINY_GPT2

import clearstory
from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow, ModelWarning
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.transformer.presets import CLEAR_TRANSLATE
from clearstory.recipes.finetuning.loop import finetune_events
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.events import GenerationProgress, TrainingNote, TrainingResult
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training.checkpoint import load_checkpoint

Cli = Callable[..., Any]

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs"}
TRAINING: dict[str, Any] = {
    "learning_rate": 0.01, "precision": "fp32", "threads": 1, "device": "cpu", "matmul": "mkl", "eval_steps": 4,
}  # fmt: skip
SMALL = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 32, "dropout": 0.0}


def pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Numbers in English and in German; no two are equal."""
    draw, found = random.Random(seed), {}
    while len(found) < count:
        words = [draw.choice(list(WORDS)) for _ in range(draw.randint(1, 4))]
        found[" ".join(words)] = " ".join(WORDS[word] for word in words)
    return list(found.items())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-decoder and a decoder, and files of pairs; no test changes them."""
    home = tmp_path_factory.mktemp("texts")
    rows = pairs(120)
    (home / "train.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in rows), encoding="utf-8")
    for side, name in enumerate(("dev.en", "dev.de")):
        (home / name).write_text("".join(f"{pair[side]}\n" for pair in pairs(12, seed=7)), encoding="utf-8")
    lines = [f"{source}\nTL;DR: {target}" for source, target in rows]
    tokenizer = train_tokenizer("bpe:300", lines)
    start = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    configs = {
        "seq2seq": replace(CLEAR_TRANSLATE, vocab=tokenizer.vocab, context=32, decoder_start_token_id=start, **SMALL),  # type: ignore[arg-type]
        "decoder": replace(TINY_GPT2, vocab=tokenizer.vocab, context=64),
    }
    for name, config in configs.items():
        card = ModelCard(name=name, family=config.family, parameters=0)
        save_model(home / name, build(config, seed=3), tokenizer, card)
    return home


def recipe(home: Path, out: Path, model: str = "seq2seq", task: str = "translate", **more: Any) -> FinetuneRecipe:
    training = {**TRAINING, **more.pop("training", {})}
    values = {"model": str(home / model), "data": (str(home / "train.tsv"),), "task": task, "out": out, "steps": 8}
    return build_settings(FinetuneRecipe, {**values, **more, "training": training})


def run(recipe: FinetuneRecipe) -> tuple[list[Any], TrainingResult]:
    events = list(finetune_events(recipe))
    assert isinstance(events[-1], TrainingResult)
    return events, events[-1]


def test_an_encoder_decoder_is_trained_and_scored(home: Path, tmp_path: Path) -> None:
    held_out = (str(home / "dev.en"), str(home / "dev.de"))
    events, result = run(
        recipe(home, tmp_path / "run", validation=held_out, num_beams=2, max_target_length=12, max_eval_samples=5)
    )
    assert list(result.metrics) == ["bleu", "chrf", "ter", "log_likelihood"]
    assert [each.done for each in events if isinstance(each, GenerationProgress)] == [1, 2, 3, 4, 5]
    report = json.loads((tmp_path / "run" / "report.json").read_text())["validation"]
    assert report["examples"] == 5
    details = report["details"]
    assert details["signatures"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert details["baselines"]["copy of the source"]["scores"]["ter"] > 0
    assert len(details["examples"]) == len(details["worst_outputs"]) == 5
    saved = json.loads((result.folder / "generation_config.json").read_text())
    assert (saved["num_beams"], saved["max_new_tokens"]) == (2, 12)
    assert saved["clearstory_text_to_text"] == {"task": "translate"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "copy of the source" in page
    assert "nrefs:1" in page
    # What was scored is what the saved model translates.
    shown = details["examples"][0]
    [again] = clearstory.translate(tmp_path / "run", [shown["source"]]).texts
    assert again.text == shown["output"]


@pytest.mark.parametrize("rank", [0, 2])
def test_a_decoder_learns_targets_after_its_prompt(rank: int, home: Path, tmp_path: Path) -> None:
    with pytest.warns(ModelWarning, match=r"sources have more than 8 tokens and are truncated, the first is .*, line"):
        _, result = run(
            recipe(
                home,
                tmp_path / "run",
                "decoder",
                "summarize",
                lora={"rank": rank},
                max_source_length=8,
                truncate="source-right",
                prompt_template="{source}\nTL;DR:",
                max_eval_samples=6,
                training={"batch_tokens": 300},
            )
        )
    assert list(result.metrics)[:3] == ["rouge1", "rouge2", "rougeL"]
    report = json.loads((tmp_path / "run" / "report.json").read_text())["validation"]["details"]
    assert set(report["baselines"]) == {"first sentence", "copy of the source"}
    saved = json.loads((result.folder / "generation_config.json").read_text())
    assert saved["clearstory_text_to_text"] == {"task": "summarize", "prompt_template": "{source}\nTL;DR:"}
    opened = open_model(result.folder)
    assert opened.generation_config.other["clearstory_text_to_text"]["task"] == "summarize"


def test_a_resumed_run_with_averaged_checkpoints_is_an_uninterrupted_one(home: Path, tmp_path: Path) -> None:
    more = {"training": {"average_checkpoints": 2, "eval_steps": 2, "save_steps": 3, "batch_tokens": 200}}
    whole, _ = run(recipe(home, tmp_path / "whole", max_eval_samples=2, **more))
    assert any(isinstance(each, TrainingNote) and "the last 2 evaluations" in each.message for each in whole)

    interrupted = finetune_events(recipe(home, tmp_path / "half", max_eval_samples=2, **more))
    for event in interrupted:
        if getattr(event, "step", 0) == 7:
            break
    interrupted.close()  # killed after step 7; the newest checkpoint is of step 6
    resumed, _ = run(recipe(home, tmp_path / "half", max_eval_samples=2, resume=True, **more))
    ends = [load_checkpoint(tmp_path / name / "checkpoints" / "step-000008").model for name in ("whole", "half")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    kept = [sorted(path.name for path in (tmp_path / name / "averaging").iterdir()) for name in ("whole", "half")]
    assert kept[0] == kept[1] == ["step-000006.safetensors", "step-000008.safetensors"]
    weights = [open_model(tmp_path / name).model.state_dict() for name in ("whole", "half")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert whole[-1].metrics == resumed[-1].metrics


def test_a_teacher_replaces_the_targets_and_is_asked_once(home: Path, tmp_path: Path) -> None:
    opened, teacher = open_model(home / "seq2seq"), str(tmp_path / "teacher")
    config = replace(opened.generation_config, max_new_tokens=8)
    save_model(teacher, opened.model, opened.tokenizer, opened.card, generation_config=config)
    wanted = recipe(home, tmp_path / "run", teacher=teacher, teacher_num_beams=1, max_eval_samples=2, steps=2)
    events, _ = run(wanted)
    asked = [each for each in events if isinstance(each, GenerationProgress) and each.what == "teacher"]
    assert asked[-1].done == asked[-1].total == 108  # a tenth of 120 is held out
    [file] = (tmp_path / "run" / "teacher").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines() if line]
    assert len(lines) == 108
    source, output = lines[0]
    [same] = clearstory.translate(teacher, source, beam=1).texts
    assert output == same.text
    # A damaged end is made again, and nothing else.
    file.write_bytes(file.read_bytes()[:-9])
    again, _ = run(replace(wanted, overwrite=True))
    progress = [each for each in again if isinstance(each, GenerationProgress) and each.what == "teacher"]
    assert [each.done for each in progress] == [108]
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["corpus"]


def test_evaluate_scores_generated_texts(home: Path, tmp_path: Path, cli: Cli) -> None:
    answer = cli(
        "evaluate", home / "seq2seq", home / "dev.en", home / "dev.de", "--task", "translate", "--num-beams", "1",
        "--max-target-length", "5", "--json",
    )  # fmt: skip
    scores = json.loads(answer.out)
    assert list(scores["metrics"]) == ["bleu", "chrf", "ter", "log_likelihood"]
    assert scores["details"]["decoding"] == "greedy search, at most 5 tokens"
    with pytest.raises(BadSetting, match="num_beams is for tasks translate and summarize"):
        clearstory.evaluate(home / "seq2seq", home / "dev.en", num_beams=1)  # type: ignore[call-overload]


def test_lines_of_a_file_stay_where_they_are(home: Path, tmp_path: Path, cli: Cli) -> None:
    file = tmp_path / "in.txt"
    file.write_bytes(b"one two\n\n" + b"one two three " * 12 + b"\nthr\xe9\nfour\n")
    model, out = home / "seq2seq", tmp_path / "out.txt"
    answer = cli("translate", model, file, "--max-tokens", "4", "--beam", "1")
    assert answer.status == 1
    assert "2 of 5 lines have no output and are left empty: line 3 of" in answer.last
    assert "tokens, but at most 32 fit" in answer.last
    assert "line 4 of" in answer.err
    lines = answer.out.split("\n")
    assert (len(lines), lines[1], lines[2], lines[3]) == (6, "", "", "")
    assert lines[0] == clearstory.translate(model, "one two", max_tokens=4, beam=1).texts[0].text
    cut = cli("translate", model, file, "--max-tokens", "4", "--truncate", "source-right", "--errors", "replace")
    assert cut.status == 0

    best = cli("translate", model, file, "--max-tokens", "4", "--n-best", "2", "--out", out, "--errors", "replace")
    assert best.status == 1  # the long line
    moses = [line.split(" ||| ") for line in out.read_text(encoding="utf-8").splitlines() if line]
    assert [row[0] for row in moses] == ["0", "0", "3", "3", "4", "4"]
    assert float(moses[0][2]) >= float(moses[1][2])
    assert not out.with_name("out.txt.part").exists()
    with pytest.raises(ContextOverflow, match="but at most 32 fit"):
        clearstory.translate(model, "one two three " * 12)


def test_an_interrupted_file_goes_on_where_it_stood(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clearstory.recipes.inference import translate as module

    monkeypatch.setattr(module, "CHUNK", 3)
    file, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
    file.write_text("".join(f"{source}\n" for source, _ in pairs(8)))

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"max_tokens": 4, "beam": 1, "out": out}
    with pytest.raises(KeyboardInterrupt):
        clearstory.translate(home / "seq2seq", file, on_progress=stop, **options)
    assert not out.exists()
    with (part := out.with_name("out.jsonl.part")).open("a") as torn:
        torn.write('{"index": 7, "te')  # as after a power cut
    assert len(part.read_text().splitlines()) == 6
    seen: list[int] = []
    clearstory.translate(home / "seq2seq", file, on_progress=lambda done, total: seen.append(done), **options)
    assert seen == [5, 6, 7, 8]  # four were done
    found = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    plain = clearstory.translate(home / "seq2seq", file, max_tokens=4, beam=1).texts
    assert found == [each.text for each in plain]


def test_decoders_answer_with_their_prompt(home: Path) -> None:
    with pytest.raises(CannotDo, match="was not fine-tuned to translate"):
        clearstory.translate(home / "decoder", "one")
    made = clearstory.translate(home / "decoder", ["one", "two three"], prompt_template="{source} =", max_tokens=3)
    assert all(each.tokens <= 3 for each in made.texts)
    beams = clearstory.summarize(home / "decoder", "one", beam=2, n_best=2, max_tokens=3).texts[0]
    assert len(beams.n_best) == 2
    assert beams.text == beams.n_best[0].text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"truncate": "left"}, "truncate is left, but task translate has a source and a target"),
        ({"task": "classify", "num_beams": 2}, "num_beams is for tasks translate and summarize, but task is classify"),
        ({"task": "classify", "teacher": "x"}, "teacher is for tasks translate and summarize"),
        ({"task": "classify", "truncate": "source-left"}, "truncate is source-left, but task classify"),
        ({"prompt_template": "no place"}, r"prompt_template is 'no place'; it must contain \{source\} exactly once"),
        ({"teacher_num_beams": 2}, "there is no teacher; give one"),
        ({"threshold": "0.3"}, "threshold is for labels, but task translate"),
        ({"training": {"average_checkpoints": 1}}, "which averages nothing"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=message):
        build_settings(FinetuneRecipe, {"model": "m", "data": ["d"], "task": "translate", **values})


def test_bad_files_are_refused_with_their_lines(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.de").write_text("eins\n")
    with pytest.raises(BadInput, match=r"a\.en has \d+ lines? and .*a\.de has 1; line-aligned"):
        run(recipe(home, tmp_path / "run", data=(str(tmp_path / "a.en"), str(tmp_path / "a.de"))))
    labels = tmp_path / "labels.tsv"
    labels.write_text("".join(f"a text of number {n}\t{n % 2}\n" for n in range(30)))
    with pytest.raises(
        BadInput, match=r"labels\.tsv has labels, not pairs of texts: the second column has only numbers"
    ):
        run(recipe(home, tmp_path / "run", data=(str(labels),)))
    with pytest.raises(BadInput, match=r"labels\.tsv has labels, not pairs"):
        clearstory.train(str(labels), objective="seq2seq", model="lstm-attention", steps=1, out=tmp_path / "run")
    long = tmp_path / "long.tsv"
    long.write_text("one\teins\n" + "one two three " * 12 + "\teins\n")
    with pytest.raises(ContextOverflow, match=r"long\.tsv, line 2 has [\d]+ tokens, but at most 32 fit"):
        run(recipe(home, tmp_path / "run", data=(str(long),), validation="0"))
    with pytest.raises(BadSetting, match="source_prefix is for encoder-decoders"):
        run(recipe(home, tmp_path / "run", "decoder", source_prefix="x"))
    with pytest.raises(BadSetting, match="instruction is a message in a chat template, but this model has none"):
        run(recipe(home, tmp_path / "run", "decoder", instruction="x {source}"))


def test_prefixes_instructions_and_penalties_are_saved(home: Path, tmp_path: Path) -> None:
    more = {"steps": 1, "max_eval_samples": 1}
    _, result = run(recipe(home, tmp_path / "prefix", source_prefix="say: ", length_penalty=0.5, num_beams=2, **more))
    saved = json.loads((result.folder / "generation_config.json").read_text())
    assert (saved["length_penalty"], saved["num_beams"]) == (0.5, 2)
    assert saved["clearstory_text_to_text"] == {"task": "translate", "source_prefix": "say: "}
    plain = clearstory.translate(home / "seq2seq", "say: one", beam=2, length_penalty=0.5, max_tokens=4).texts[0]
    prefixed = clearstory.translate(
        home / "seq2seq", "one", source_prefix="say: ", beam=2, length_penalty=0.5, max_tokens=4
    )
    assert prefixed.texts[0].text == plain.text

    opened = open_model(home / "decoder")
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}<assistant>"
    tokenizer = replace(opened.tokenizer, config={**opened.tokenizer.config, "chat_template": template})  # type: ignore[type-var, union-attr]
    save_model(tmp_path / "chat", opened.model, tokenizer, opened.card)
    wanted = recipe(tmp_path, tmp_path / "run", "chat", "summarize", data=(str(home / "train.tsv"),), **more)
    _, result = run(replace(wanted, text_to_text=replace(wanted.text_to_text, instruction="Say: {source}")))
    saved = json.loads((result.folder / "generation_config.json").read_text())
    assert saved["clearstory_text_to_text"] == {"task": "summarize", "instruction": "Say: {source}"}
    by_hand = clearstory.generate(result.folder, "Say: one two", max_tokens=3, temperature=0).text
    assert clearstory.summarize(result.folder, "one two", max_tokens=3).texts[0].text == by_hand.strip()


def test_the_folder_generates_the_same_in_transformers(home: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    _, result = run(recipe(home, tmp_path / "run", num_beams=2, max_target_length=9, max_eval_samples=1))
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(result.folder).eval()
    opened = open_model(result.folder)
    assert opened.tokenizer is not None
    for source in ("one two", "six three four"):
        ids = torch.tensor([[*opened.tokenizer.encode(source), opened.tokenizer.eos_token_id or 0]])
        made = theirs.generate(ids)[0].tolist()  # by the saved generation config
        assert theirs.generation_config.num_beams == 2
        text = opened.tokenizer.decode(id for id in made[1:] if id != opened.tokenizer.eos_token_id)
        assert clearstory.translate(result.folder, source, precision="fp32").texts[0].text == text.strip()


def test_an_adapter_of_an_encoder_decoder_says_so(home: Path, tmp_path: Path) -> None:
    _, result = run(recipe(home, tmp_path / "run", lora={"rank": 2}, steps=1, max_eval_samples=1, num_beams=3))
    assert json.loads((result.folder / "adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"
    assert open_model(result.folder).generation_config.num_beams == 3
