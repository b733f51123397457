"""Fine-tuning for the tags of words, end to end: alignment, metrics, exact resume, and what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import TINY_GPT2, TINY_LSTM

import clearstory
from clearstory.errors import BadInput, BadSetting, CannotDo, ClearstoryError, ContextOverflow
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.metrics import IGNORE_INDEX
from clearstory.models.build import build
from clearstory.models.transformer.presets import MINILM
from clearstory.recipes.finetuning.loop import finetune_events
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.events import ModelSaved, TrainingResult
from clearstory.tasks.data.examples import LabeledWords
from clearstory.tasks.tag import Tag
from clearstory.tasks.text_windows import TextWindows
from clearstory.tasks.word_predictions import WordPredictions
from clearstory.tasks.word_windows import WordWindows
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training import checkpoint

Cli = Callable[..., Any]

TAGS = {"DET": ("the", "a", "some"), "NOUN": ("filmmaker", "songs", "bookshop"), "VERB": ("watches", "sang", "reads")}
SMALL: dict[str, Any] = {"num_train_epochs": 10, "learning_rate": 1e-2, "precision": "fp32", "threads": 1}
SMALL |= {"device": "cpu", "eval_steps": 8}
BACKBONES = {
    "bert": replace(MINILM, context=40, width=16, layers=2, heads=2, kv_heads=2, head_dim=8, intermediate_size=32),
    "gpt2": replace(TINY_GPT2, context=64),
    "lstm": TINY_LSTM,
}


def sentences(count: int, seed: int = 0) -> list[list[tuple[str, str]]]:
    """Sentences of words with their tags."""
    draw = random.Random(seed)
    words = [(word, tag) for tag, of_tag in TAGS.items() for word in of_tag]
    return [[draw.choice(words) for _ in range(draw.randint(2, 5))] for _ in range(count)]


def as_entities(sentence: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Nouns as entities: one that follows a noun continues it."""
    tags = [tag == "NOUN" for _, tag in sentence]
    before = [False, *tags]
    names = ["O" if not tag else "I-THING" if last else "B-THING" for tag, last in zip(tags, before, strict=False)]
    return [(word, name) for (word, _), name in zip(sentence, names, strict=True)]


def conll(path: Path, rows: list[list[tuple[str, str]]]) -> Path:
    text = "\n\n".join("\n".join(f"{word} {tag}" for word, tag in sentence) for sentence in rows)
    path.write_text(text + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of each backbone, and files of tagged words; no test changes them."""
    home = tmp_path_factory.mktemp("tagged")
    conll(home / "train.conll", sentences(160))
    conll(home / "dev.conll", sentences(40, seed=1))
    conll(home / "train-ner.conll", [as_entities(each) for each in sentences(160)])
    conll(home / "dev-ner.conll", [as_entities(each) for each in sentences(40, seed=1)])
    lines = [" ".join(word for word, _ in sentence) for sentence in sentences(160)]
    for name, config in BACKBONES.items():
        tokenizer = train_tokenizer({"bert": "wordpiece:60", "gpt2": "bpe:270", "lstm": "words"}[name], lines)
        model = build(replace(config, vocab=tokenizer.vocab), seed=3)
        save_model(home / name, model, tokenizer, ModelCard(name=name, family=config.family, parameters=0))
    return home


def recipe(home: Path, out: Path, data: str = "train", model: str = "bert", **more: Any) -> FinetuneRecipe:
    dev = str(home / data.replace("train", "dev")) + ".conll"
    values = {"model": str(home / model), "data": (f"{home / data}.conll",), "out": out, "validation": dev, **more}
    return build_settings(FinetuneRecipe, {"task": "tag", **values, "training": {**SMALL, **more.get("training", {})}})


def run(recipe: FinetuneRecipe) -> TrainingResult:
    *_, result = finetune_events(recipe)
    assert isinstance(result, TrainingResult)
    return result


def task_of(home: Path, **windows: Any) -> Tag:
    opened = open_model(home / "bert")
    return Tag(tuple(TAGS), WordWindows(TextWindows.of_model(opened.model, opened.tokenizer, **windows)))  # type: ignore[arg-type]


def examples(rows: list[list[tuple[str, str]]]) -> list[LabeledWords]:
    return [LabeledWords(tuple(word for word, _ in each), tuple(tag for _, tag in each)) for each in rows]


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_learns_and_answers(name: str, home: Path, tmp_path: Path, cli: Cli) -> None:
    training = {"learning_rate": 2e-2, "batch_size": 8} if name == "lstm" else {}
    result = run(recipe(home, tmp_path / "run", model=name, training=training))
    assert result.metrics["accuracy"] > 0.9
    dev = sentences(40, seed=1)
    texts = [" ".join(word for word, _ in sentence) for sentence in dev]
    found = clearstory.classify(tmp_path / "run", texts)
    right = [
        word.label == tag
        for answer, sentence in zip(found, dev, strict=True)
        for word, (_, tag) in zip(answer.words, sentence, strict=True)
    ]
    assert np.mean(right) == pytest.approx(result.metrics["accuracy"])
    tagged = json.loads(cli("tag", tmp_path / "run", texts[0], "--json").out)
    assert tagged["tags"] == [word.label for word in found[0].words]
    assert tagged["probabilities"] == pytest.approx([word.probability for word in found[0].words], rel=1e-4)
    answer = json.loads(cli("evaluate", tmp_path / "run", home / "dev.conll", "--task", "tag", "--json").out)
    assert answer["metrics"] == pytest.approx(dict(result.metrics))
    assert open_model(result.folder).model.config.labels == ("DET", "NOUN", "VERB")


def test_entities_are_scored_as_wholes(home: Path, tmp_path: Path) -> None:
    result = run(recipe(home, tmp_path / "run", "train-ner"))
    assert set(result.metrics) == {"f1", "precision", "recall"}
    assert result.metrics["f1"] > 0.7
    low, high = result.intervals["f1"]
    assert low <= result.metrics["f1"] <= high
    details = json.loads((tmp_path / "run" / "report.json").read_text())["validation"]["details"]
    [thing] = details["labels"]
    assert (thing["label"], thing["f1"]) == ("THING", pytest.approx(result.metrics["f1"]))
    assert all(
        each["word"] in each["text"].split() and each["label"] != each["predicted"] for each in details["mistakes"]
    )
    assert "THING" in (tmp_path / "run" / "report.html").read_text()


def test_scores_by_hand(home: Path) -> None:
    """Right: P in words 0 to 1 and L in word 3. Predicted: P in words 0 to 1, L in words 2 to 3."""
    labels = ("O", "B-P", "I-P", "B-L", "I-L")
    task = replace(task_of(home), labels=labels, entities=True)
    rows = task.encode([LabeledWords(("the", "songs", "a", "sang"), ("B-P", "I-P", "O", "B-L"))])
    predicted = [WordPredictions(np.eye(5)[[1, 2, 3, 4]], np.array([1, 2, 3, 4]))]
    scores = task.score(predicted, rows)
    assert (scores["f1"], scores["precision"], scores["recall"]) == (0.5, 0.5, 0.5)
    flat = replace(task, entities=False)
    assert flat.score(predicted, rows)["accuracy"] == 0.5


def test_each_word_has_one_prediction_whatever_its_batch(home: Path) -> None:
    task, model = task_of(home), build(replace(BACKBONES["bert"], vocab=60), seed=1)
    model = task.build_model(model).eval()
    data = examples(sentences(30))
    values = [each.probabilities for each in task.predict(model, task.encode(data))]
    assert [len(each) for each in values] == [len(each.words) for each in data]
    assert all(np.allclose(each.sum(1), 1) for each in values)
    order = random.Random(0).sample(range(30), 30)
    shuffled = task.predict(model, task.encode([data[index] for index in order]))
    for found, index in zip(shuffled, order, strict=True):
        np.testing.assert_allclose(found.probabilities, values[index], atol=1e-5)
        [alone] = task.predict(model, task.encode([data[index]]))
        np.testing.assert_allclose(alone.probabilities, values[index], atol=1e-5)


def test_the_first_piece_of_each_word_is_scored(home: Path) -> None:
    task = task_of(home)
    tokenizer = task.windows.inputs.tokenizer
    data = examples([[("filmmaker", "NOUN"), ("\u200b", "DET"), ("sang", "VERB"), ("a", "DET")], [("the", "DET")]])
    batch = task.batch(task.encode(data))
    first, second = len(tokenizer.encode("filmmaker")), len(tokenizer.encode("sang"))
    expected = [IGNORE_INDEX] * batch.targets.shape[1]
    expected[1], expected[1 + first], expected[1 + first + second] = 1, 2, 0  # the second word has no piece
    assert first > 1
    assert batch.targets[0].tolist() == expected
    assert task.count_targets(batch) == {"labels": 4}
    model = task.build_model(build(replace(BACKBONES["bert"], vocab=60), seed=1)).eval()
    values = task.predict(model, task.encode(data))
    assert values[0].ids[1] == -1
    assert task.details(values, task.encode(data), data)["labels"][0]["support"] == 3


def test_long_sentences_are_refused_cut_or_read_in_windows(home: Path, tmp_path: Path, cli: Cli) -> None:
    words = examples([[("sang", "VERB"), ("the", "DET")] * 20])
    length = 2 + len(task_of(home).windows.inputs.tokenizer.encode(words[0].text))
    with pytest.raises(ContextOverflow, match=rf"{length} tokens .* context is 40; pass --truncate"):
        task_of(home).encode(words)
    model = task_of(home).build_model(build(replace(BACKBONES["bert"], vocab=60), seed=1)).eval()
    cut = task_of(home, truncate="right")
    values = cut.predict(model, cut.encode(words))[0].probabilities
    assert values[0].any()
    assert not values[-1].any()
    strided = task_of(home, stride=19)
    rows = strided.encode(words)
    whole = strided.predict(model, rows)[0].probabilities
    assert len(rows) > 1
    assert whole.any(1).all()
    np.testing.assert_allclose(whole[0], values[0], atol=1e-5)  # both windows begin with the sentence
    run(recipe(home, tmp_path / "run", steps=1))
    found = clearstory.classify(tmp_path / "run", words[0].text, stride=19)[0].words
    tagged = json.loads(cli("tag", tmp_path / "run", words[0].text, "--stride", "19", "--json").out)
    assert [each.word for each in found] == tagged["tokens"] == list(words[0].words)
    assert tagged["tags"] == [each.label for each in found]
    assert "--truncate" in cli("tag", tmp_path / "run", words[0].text).err


def test_a_resumed_run_ends_as_an_uninterrupted_one(home: Path, tmp_path: Path) -> None:
    training = {"num_train_epochs": 1, "eval_steps": 2, "gradient_accumulation_steps": 2, "batch_size": 16}
    whole = recipe(home, tmp_path / "whole", "train-ner", training=training, lora={"rank": 2})
    run(whole)
    part = replace(whole, out=tmp_path / "part")
    for event in finetune_events(part):
        if isinstance(event, ModelSaved) and event.kind == "checkpoint" and event.step == 2:
            break
    run(replace(part, resume=True))
    one, other = (
        checkpoint.load_checkpoint(checkpoint.list_checkpoints(tmp_path / name)[-1]).model for name in ("whole", "part")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_tagger_can_be_fine_tuned_again(home: Path, tmp_path: Path) -> None:
    run(recipe(home, tmp_path / "first", steps=2))
    again = replace(recipe(home, tmp_path / "again", steps=2), model=str(tmp_path / "first"))
    run(again)
    other = replace(recipe(home, tmp_path / "third", "train-ner", steps=2), model=str(tmp_path / "first"))
    with pytest.raises(ClearstoryError, match="DET"):
        run(other)
    run(replace(other, new_head=True))
    assert open_model(tmp_path / "third").model.config.labels == ("O", "B-THING", "I-THING")


def test_bad_input_is_one_sentence(home: Path, tmp_path: Path, cli: Cli) -> None:
    def refused(error: type[ClearstoryError], match: str, **changes: Any) -> None:
        with pytest.raises(error, match=match):
            run(replace(recipe(home, tmp_path / "refused"), **changes))
        assert not list((tmp_path / "refused").glob("[a-z]*"))

    one = conll(tmp_path / "one.conll", [[("the", "DET")], [("a", "DET")]])
    refused(BadInput, "have the tag 'DET'", data=(str(one),), validation=("0",))
    long = conll(tmp_path / "long.conll", [*sentences(20), [("the", "DET")] * 40])
    refused(ContextOverflow, r"long\.conll.* line \d+.* context is 40", data=(str(long),))
    unseen = conll(tmp_path / "unseen.conll", [[("the", "ADJ")]])
    refused(BadInput, r"unseen\.conll.*ADJ", validation=(str(unseen),))
    with pytest.raises(BadSetting, match=r"class_weights has 2 numbers.*3 labels"):
        run(recipe(home, tmp_path / "refused", training={"class_weights": ("1", "2")}))
    run(recipe(home, tmp_path / "run", steps=1, training={"class_weights": ("balanced",)}))
    assert "not for words" not in cli("evaluate", tmp_path / "run", home / "dev.conll", "--task", "tag").err
    answer = cli("evaluate", tmp_path / "run", home / "dev.conll", "--task", "classify")
    assert (answer.status, "--task tag" in answer.err) == (1, True)
    with pytest.raises(CannotDo, match="labels words"):
        clearstory.classify(tmp_path / "run", "the", pair="a")
    assert "--task tag" in cli("tag", home / "bert", "the songs").err
