"""Encoders end to end: trained from text, then used by every command that supports them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clearstory
from clearstory.errors import BadInput, BadSetting, CannotDo, CheckpointMismatch, ContextOverflow
from clearstory.formats.folders import OpenedModel, open_model
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.recipes.training.events import Evaluated, StepCompleted, TrainingResult
from clearstory.text.special_tokens import build_inputs
from clearstory.training import checkpoint
from trained import TRAINING, all_events, contents, metrics_without_times

Cli = Callable[..., Any]
BOTH = "mlm+nsp"
SENTENCES = ("the cat sat on a mat. ", "Dogs bark at night. ", "A bird sings. ", "The moon is up.\n", "She reads on. ")


def documents(folder: Path, count: int = 60) -> Path:
    """Small documents of whole sentences, a line of jsonl each."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(SENTENCES, 8)) for _ in range(count)]
    file = folder / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text, "odd": text[::-1]}) + "\n" for text in texts), encoding="utf-8")
    return file


TINY = {"name": "bert-tiny", "width": 16, "layers": 1, "heads": 2}


def recipe(file: Path, out: Path, objective: str = BOTH, **more: Any) -> TrainRecipe:
    usual: dict[str, Any] = {"text": (str(file),), "out": out, "steps": 8, "tokenizer": "wordpiece:90", "model": TINY}
    training = {**TRAINING, "context": 24, "batch_size": 4}
    return build_train_recipe({**usual, "training": training, "objective": objective}, more)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def text(home: Path) -> Path:
    return documents(home)


@pytest.fixture(scope="module")
def run(home: Path, text: Path) -> Path:
    """A run with both objectives, which no test changes."""
    all_events(recipe(text, home / "run", **{"data.cache": str(home / "cache")}))
    return home / "run"


def test_one_command_from_raw_text_to_an_encoder(text: Path, tmp_path: Path, cli: Cli) -> None:
    words = ["train", text, "--model", "bert-tiny", "--model.width=16", "--model.layers=1", "--model.heads=2"]
    words += ["--steps=4", "--tokenizer=wordpiece:90", "--training.context=24", "--training.batch_size=4"]
    words += ["--training.device=cpu", "--training.precision=fp32", "--training.threads=1"]
    both = cli(*words, "--objective", BOTH, "--out", tmp_path / "both", "--json")
    assert both.status == 0, both.err
    result = json.loads(both.out)
    assert result["objective"] == BOTH
    assert result["bits_per_byte"] is None
    assert "from both sides" in result["reason"]
    assert 0 <= result["metrics"]["next_sentence_accuracy"] <= 1
    assert "nats per masked token · next sentence" in both.err
    assert "(masked " in both.err
    assert ", next-sentence " in both.err
    plain = cli(*words, "--out", tmp_path / "masked")  # what is usual for its kind
    assert plain.status == 0, plain.err
    assert "nats per masked token on the validation text" in plain.out
    assert "next:  clearstory fill-mask" in plain.out
    kinds = [
        json.loads((tmp_path / name / "model" / "config.json").read_text())["architectures"]
        for name in ("both", "masked")
    ]
    assert kinds == [["BertForPreTraining"], ["BertForMaskedLM"]]  # no untrained head


def test_both_losses_are_reported_and_logged_separately(text: Path, tmp_path: Path) -> None:
    events = all_events(recipe(text, tmp_path / "run"))
    steps = [event for event in events if isinstance(event, StepCompleted)]
    assert all(set(step.terms) == {"masked", "next-sentence"} for step in steps)
    assert all(step.loss == pytest.approx(sum(step.terms.values())) for step in steps)
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    assert all(each.bits_per_byte is None and each.loss_unit == "masked token" for each in evaluations)
    rows = metrics_without_times(tmp_path / "run")
    assert set(next(row for row in rows if row["kind"] == "step")["terms"]) == {"masked", "next-sentence"}
    assert [row["next_sentence_accuracy"] for row in rows if row["kind"] == "evaluation"] == [
        evaluation.metrics["next_sentence_accuracy"] for evaluation in evaluations
    ]
    assert "nats per masked token" in (tmp_path / "run" / "curve.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("objective", [BOTH, "mlm"])
def test_a_resumed_run_equals_an_uninterrupted_one(text: Path, tmp_path: Path, objective: str) -> None:
    all_events(recipe(text, tmp_path / "alone", objective))
    out = tmp_path / "stopped"
    all_events(recipe(text, out, objective))
    # As if it had been killed after the checkpoint of step 4.
    shutil.rmtree(checkpoint.list_checkpoints(out)[-1])
    all_events(recipe(text, out, objective if objective == BOTH else "auto", resume=True))
    rows = [
        [row for row in metrics_without_times(place) if row["kind"] != "evaluation"]
        for place in (out, tmp_path / "alone")
    ]
    assert rows[0] == rows[1]
    assert contents(out / "model")["model.safetensors"] == contents(tmp_path / "alone" / "model")["model.safetensors"]
    with pytest.raises(CheckpointMismatch, match="objective"):
        all_events(recipe(text, out, "mlm" if objective == BOTH else BOTH, resume=True))


def test_impossible_training_is_refused(text: Path, tmp_path: Path) -> None:
    (tmp_path / "single.txt").write_text("One. Two. Three. " * 50, encoding="utf-8")
    with pytest.raises(BadInput, match=r"has 1; give more documents"):
        all_events(recipe(tmp_path / "single.txt", tmp_path / "a"))
    with pytest.raises(BadSetting, match="objective is causal, which does not train an encoder"):
        all_events(recipe(text, tmp_path / "b", "causal"))
    with pytest.raises(BadSetting, match="objective is mlm, which does not train a decoder"):
        all_events(recipe(text, tmp_path / "c", "mlm", model="clear"))
    with pytest.raises(CannotDo, match=r"this tokenizer \(bytes\) has no mask token"):
        all_events(recipe(text, tmp_path / "d", "mlm", tokenizer="bytes"))
    with pytest.raises(BadSetting, match=r"minilm has no head for it; set model\.mlm_transform"):
        all_events(recipe(text, tmp_path / "e", "mlm", model={**TINY, "name": "minilm"}))
    with pytest.raises(BadSetting, match=r"set model\.pooler to true"):
        all_events(recipe(text, tmp_path / "f", **{"model.pooler": False}))
    with pytest.raises(BadSetting, match="sample_steps is 2"):
        all_events(recipe(text, tmp_path / "g", **{"training.sample_steps": 2}))
    assert {path.name for path in tmp_path.iterdir()} <= {"single.txt", "cache"}


def test_evaluate_agrees_with_what_training_said(run: Path, text: Path, cli: Cli) -> None:
    from clearstory.text.corpus import Corpus

    held_out = [document.text for document in Corpus.open(text).documents("validation")]
    found: Any = clearstory.evaluate(run, texts=held_out)
    end = next(row for row in metrics_without_times(run) if row["kind"] == "end")
    assert found.nats_per_token == pytest.approx(end["nats_per_token"], rel=1e-6)
    assert found.next_sentence_accuracy == end["next_sentence_accuracy"]
    result = json.loads(cli("evaluate", run, text, "--limit", "200", "--json").out)
    assert result["bits_per_byte"] is None
    assert "pseudo-likelihood" in result["reason"]
    assert 150 < result["pseudo_tokens"] <= 200
    assert result["pseudo_log_likelihood"] == pytest.approx(-result["pseudo_nats_per_token"] * result["pseudo_tokens"])
    printed = cli("evaluate", run, text, "--limit", "50").out
    assert "nats per masked token" in printed
    assert "next-sentence accuracy" in printed
    assert "nats per token by pseudo-likelihood" in printed


def test_pseudo_likelihood_is_that_of_each_token_alone(run: Path) -> None:
    opened = open_model(run)
    tokenizer: Any = opened.tokenizer
    text = "the cat sat."
    ids, _ = build_inputs(tokenizer, text)
    total = 0.0
    for place in range(1, len(ids) - 1):
        hidden = opened.model.encode(
            TokenBatch.from_sequences([[*ids[:place], tokenizer.mask_token_id, *ids[place + 1 :]]])
        )
        total -= float(opened.model.logits(hidden)[0, place].log_softmax(-1)[ids[place]].detach())
    found: Any = clearstory.evaluate(run, texts=[text])
    assert found.pseudo_tokens == len(ids) - 2
    assert found.pseudo_nats_per_token * found.pseudo_tokens == pytest.approx(total, rel=1e-5)


def test_a_mask_is_filled_with_probabilities(run: Path, cli: Cli) -> None:
    text = "The [MASK] sat on a [MASK]."
    result = json.loads(cli("fill-mask", run, text, "--top", "3", "--json").out)
    assert result["text"] == text
    assert [len(mask) for mask in result["masks"]] == [3, 3]
    opened = open_model(run)
    tokenizer: Any = opened.tokenizer
    the, sat, end = (tokenizer.encode(part) for part in ("The", "sat on a", "."))
    mask = tokenizer.mask_token_id
    ids, _ = build_inputs(tokenizer, [*the, mask, *sat, mask, *end])
    hidden = opened.model.encode(TokenBatch.from_sequences([ids]))
    probabilities = opened.model.logits(hidden)[0, 2].softmax(-1).detach()
    first = result["masks"][0]
    assert first[0]["probability"] == pytest.approx(float(probabilities.max()), rel=1e-5)
    assert first[0]["token"] == tokenizer.display_token(int(probabilities.argmax()))
    assert first[0]["probability"] >= first[1]["probability"] >= first[2]["probability"]
    assert "[MASK]" not in result["filled"]
    printed = cli("fill-mask", run, text, "The [MASK].").out
    assert printed.count("%") == 5 * 3
    whole = clearstory.fill_mask(run, "A [MASK].", top=10_000)[0].masks[0]
    assert sum(guess.probability for guess in whole) == pytest.approx(1)


def test_vectors_are_means_or_those_of_the_first_token(run: Path, cli: Cli) -> None:
    texts = ["the cat sat on a mat.", "Dogs bark."]
    opened = open_model(run)
    tokenizer: Any = opened.tokenizer
    hidden = [
        opened.model.encode(TokenBatch.from_sequences([build_inputs(tokenizer, text)[0]])).detach() for text in texts
    ]
    wanted = {
        "mean": torch.stack([each[0].mean(0) for each in hidden]),
        "cls": torch.stack([each[0, 0] for each in hidden]),
        "pooled": torch.cat([opened.model.pool(each).detach() for each in hidden]),
    }
    for pooling, vectors in wanted.items():
        result = json.loads(cli("embed", run, *texts, "--pooling", pooling, "--json").out)
        assert (result["texts"], result["width"], result["pooling"]) == (texts, 16, pooling)
        torch.testing.assert_close(torch.tensor(result["vectors"]), vectors, rtol=1e-4, atol=1e-5)
    lines = [json.loads(line) for line in cli("embed", run, *texts, "--normalize").out.splitlines()]
    assert [line["text"] for line in lines] == texts
    assert [np.linalg.norm(line["vector"]) for line in lines] == pytest.approx([1, 1])


def test_vectors_do_not_depend_on_their_company(run: Path) -> None:
    texts = ["the cat", "Dogs bark at night. A bird sings.", "", "the cat"]
    together = clearstory.embed(run, texts, batch_size=3).vectors
    alone = np.concatenate([clearstory.embed(run, [text], batch_size=1).vectors for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(alone[0], alone[3])


def test_a_text_that_is_too_long_is_refused_or_cut(run: Path, cli: Cli) -> None:
    long = "the cat sat on a mat. " * 20
    with pytest.raises(ContextOverflow, match=r"but 22 fit .* --truncate right"):
        clearstory.embed(run, long)
    left, right = (clearstory.embed(run, long + "Dogs bark.", truncate=end).vectors for end in ("left", "right"))
    assert not np.allclose(left, right)
    assert cli("fill-mask", run, long + "[MASK]").status == 1


def test_texts_may_lie_in_files(run: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "texts.txt").write_text("The [MASK].\n\nA [MASK].\n", encoding="utf-8")
    result = json.loads(cli("fill-mask", run, tmp_path / "texts.txt", "--json").out)
    assert [each["text"] for each in result["texts"]] == ["The [MASK].", "A [MASK]."]
    (tmp_path / "texts.jsonl").write_text('{"text": "a", "mine": "The [MASK]."}\n', encoding="utf-8")
    result = json.loads(cli("fill-mask", run, tmp_path / "texts.jsonl", "--text-field", "mine", "--json").out)
    assert result["text"] == "The [MASK]."
    assert json.loads(cli("embed", run, tmp_path / "texts.jsonl", "--text-field", "mine", "--json").out)["texts"] == [
        "The [MASK]."
    ]
    (tmp_path / "old.txt").write_bytes(b"The [MASK] caf\xe9.\n")
    for verb in ("fill-mask", "embed"):
        answer = cli(verb, run, tmp_path / "old.txt")
        assert answer.status == 1
        assert "not UTF-8" in answer.err
        assert cli(verb, run, tmp_path / "old.txt", "--errors", "replace").status == 0


def test_what_an_encoder_does_not_support_is_refused(run: Path, made: Any, cli: Cli) -> None:
    for words, expected in (
        (("generate", run, "the"), ("clearstory fill-mask", "clearstory embed", "clearstory classify")),
        (
            ("inspect", run, "the cat", "--view", "next-token"),
            ("the view 'next-token'", "does not predict the next token", "it supports tokens"),
        ),
        (("fill-mask", run, "the cat"), ("there is no [MASK] in 'the cat'",)),
        (("fill-mask", run, "the [MASK]", "--device", "nowhere"), ("device is 'nowhere'",)),
        (("embed", run, "the", "--device", "nowhere"), ("device is 'nowhere'",)),
        (("fill-mask", made.run, "the [MASK]"), ("this model (decoder)", "not an encoder", "clearstory train")),
        (("embed", made.run, "the", "--pooling", "pooled"), ("this model (decoder) has no pooler",)),
        (("fill-mask", run, "the [MASK]", "--top", "0"), ("top is 0",)),
        (("embed", run, "the", "--batch-size", "0"), ("batch_size is 0",)),
        (("embed", run), ("there is no text",)),
    ):
        answer = cli(*words)
        assert answer.status == 1, words
        assert answer.out == ""
        assert len(answer.err.strip().splitlines()) == 1
        assert all(part in answer.err for part in expected), answer.err


def test_an_encoder_without_a_head_for_masked_tokens_is_refused(run: Path) -> None:
    opened = open_model(run)
    config = replace(opened.model.config, mlm_transform=False, unembed_bias=False)
    bare = OpenedModel(build(config, seed=1), opened.tokenizer, opened.card)
    with pytest.raises(CannotDo, match=r"this model \(encoder\) has no masked language modelling head"):
        clearstory.fill_mask(bare, "the [MASK]")
    with pytest.raises(CannotDo, match="no masked language modelling head"):
        clearstory.evaluate(bare, texts=["the cat"])
    assert clearstory.embed(bare, "the cat").vectors.shape == (1, 16)


def test_its_attention_and_its_words_can_be_looked_at(run: Path, cli: Cli) -> None:
    grid = json.loads(cli("inspect", run, "the cat sat", "--view", "attention", "--json").out)
    assert grid["row_labels"][0] == "[CLS]"
    assert [sum(row) for row in grid["values"]] == pytest.approx([1] * len(grid["values"]), abs=1e-5)
    assert all(value > 0 for row in grid["values"] for value in row)  # it sees what comes as well
    assert cli("inspect", run, "cat", "--view", "neighbours").status == 0


def test_it_is_converted_and_reads_as_before(run: Path, tmp_path: Path, cli: Cli) -> None:
    result = json.loads(cli("convert", run, tmp_path / "same", "--json").out)
    assert (result["format"], result["max_nats_difference"]) == ("hf", 0)
    assert "clearstory fill-mask FOLDER" in (tmp_path / "same" / "README.md").read_text(encoding="utf-8")


def test_an_encoder_is_ranked_by_pseudo_likelihood_after_other_models(
    run: Path, made: Any, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearstory.evaluation.units.MAX_PSEUDO_TOKENS", 100)
    (tmp_path / "held.txt").write_text("".join(SENTENCES) * 12, encoding="utf-8")
    words = ["compare", run, made.run, "--text", tmp_path / "held.txt", "--device", "cpu", "--threads", "1",
             "--prompt", "the", "--characters", "20"]  # fmt: skip
    result = json.loads(cli(*words, "--out", tmp_path / "out", "--json").out)
    assert [model["measure"] for model in result["models"]] == ["likelihood", "pseudo-likelihood"]
    pseudo = result["models"][1]
    assert pseudo["bits_per_byte"] > 0
    assert "Salazar" in pseudo["note"]
    assert pseudo["sample"] == ""
    assert result["pairs"] == []
    assert "(pseudo-likelihood)" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    answer = cli(*words, "--out", tmp_path / "again")
    assert "* pseudo-likelihood: not comparable" in answer.out


def test_compare_trains_an_encoder_and_measures_a_part_of_the_units(
    text: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearstory.evaluation.units.MAX_PSEUDO_TOKENS", 60)
    tiny = "bert-tiny:width=16:layers=1:heads=2:training.batch_size=8:training.context=24@wordpiece:90"
    words = ["compare", text, "--models", f"ngram@characters,{tiny}", "--one-epoch", "--threads", "1", "--prompt",
             "the", "--characters", "20"]  # fmt: skip
    result = json.loads(cli(*words, "--device", "cpu", "--out", tmp_path / "out", "--json").out)
    pseudo = next(model for model in result["models"] if model["measure"] == "pseudo-likelihood")
    assert pseudo["interval"] is None or pseudo["interval"][0] <= pseudo["bits_per_byte"] <= pseudo["interval"][1]
    kept = json.loads((Path(pseudo["folder"]).parent / "measured.json").read_text(encoding="utf-8"))
    assert None in kept["nats"]
    again = json.loads(cli(*words, "--device", "cpu", "--out", tmp_path / "out", "--resume", "--json").out)
    assert [model["bits_per_byte"] for model in again["models"]] == [
        model["bits_per_byte"] for model in result["models"]
    ]


def test_the_result_names_the_objective(text: Path, tmp_path: Path) -> None:
    *_, finished = all_events(recipe(text, tmp_path / "run", "mlm", steps=2))
    assert isinstance(finished, TrainingResult)
    assert (finished.objective, finished.metrics) == ("mlm", {})
