"""Classification end to end: labels of texts and of words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import TINY_GPT2

import clearstory
from clearstory.errors import BadInput, ContextOverflow
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.head_config import ClassifierConfig
from clearstory.models.heads import SequenceClassifier
from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.models.transformer.presets import MINILM
from clearstory.recipes.inference.classify import WordLabel
from clearstory.text.encoding import encode_text
from clearstory.text.special_tokens import build_inputs
from clearstory.text.train_tokenizer import train_tokenizer

Cli = Callable[..., Any]

TEXTS = ["the cat sat on a mat.", "Dogs bark!", "", "A bird sings, it sings."]
LABELS = ("joy", "anger", "none")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two model folders, which no test changes: a text classifier and a token classifier."""
    home = tmp_path_factory.mktemp("labelled")
    tokenizer = train_tokenizer("wordpiece:60", TEXTS * 3)
    base = replace(
        MINILM,
        pooler=False,
        vocab=tokenizer.vocab,
        context=24,
        width=16,
        layers=1,
        heads=2,
        kv_heads=2,
        head_dim=8,
        intermediate_size=32,
    )
    for name, config in {
        "texts": ClassifierConfig(backbone=base, labels=LABELS, pooling="pooler"),
        "words": ClassifierConfig(backbone=base, labels=LABELS),
    }.items():
        model: Any = build(config, seed=3)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(8)  # so that the probabilities of the labels differ
        save_model(home / name, model, tokenizer, ModelCard(name=name))
    return home


def test_a_text_gets_the_probability_of_every_label(home: Path, cli: Cli) -> None:
    opened = open_model(home / "texts")
    tokenizer: Any = opened.tokenizer
    result = json.loads(cli("classify", home / "texts", *TEXTS, "--json").out)
    assert [each["text"] for each in result["texts"]] == TEXTS
    for text, each in zip(TEXTS, result["texts"], strict=True):
        tokens = TokenBatch.from_sequences([build_inputs(tokenizer, text)[0]])
        probabilities = opened.model.class_logits(tokens)[0].softmax(-1).tolist()
        assert {label["label"]: label["probability"] for label in each["labels"]} == pytest.approx(
            dict(zip(LABELS, probabilities, strict=True)), abs=1e-5
        )
        values = [label["probability"] for label in each["labels"]]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1)
    assert result["labels"] == result["texts"][0]["labels"]
    assert len({each["labels"][0]["label"] for each in result["texts"]}) > 1
    printed = cli("classify", home / "texts", *TEXTS[:2]).out
    assert printed.startswith(f"{TEXTS[0]}\n")
    assert printed.count("%") == 2 * len(LABELS)


def test_each_word_is_given_the_label_of_its_first_token(home: Path, cli: Cli) -> None:
    opened = open_model(home / "words")
    tokenizer: Any = opened.tokenizer
    text = "  the birds,  sat\u200b on\n \u200b mats. "
    [found] = clearstory.classify(home / "words", [text])
    assert [word.word for word in found.words] == text.split()
    ids, offsets = tokenizer.encode_with_offsets(text)
    tokens = TokenBatch.from_sequences([build_inputs(tokenizer, ids)[0]])
    probabilities = opened.model.class_logits(tokens)[0].softmax(-1).detach()
    position = 0
    for word in found.words:
        position = text.index(word.word, position)
        first = next(
            (i for i, (start, stop) in enumerate(offsets) if start < position + len(word.word) and stop > position),
            None,
        )
        if word.word == "\u200b":  # which the tokenizer drops
            assert word == WordLabel("\u200b")
        else:
            assert first is not None
            likeliest = probabilities[1 + first]
            assert word.label == LABELS[int(likeliest.argmax())]
            assert word.probability == pytest.approx(float(likeliest.max()), abs=1e-5)
        position += len(word.word)
    result = json.loads(cli("classify", home / "words", "the cat", "--json").out)
    assert [set(word) for word in result["words"]] == [{"word", "label", "probability"}] * 2
    assert "labels" not in result
    lines = cli("classify", home / "words", "the cat", "A bird").out.splitlines()
    assert [line.partition("\t")[0] for line in lines] == ["the", "cat", "", "A", "bird", ""]
    assert all(line.partition("\t")[2] in LABELS for line in lines if line)
    assert clearstory.classify(home / "words", "")[0].words == ()


def test_labels_do_not_depend_on_their_company(home: Path) -> None:
    for name in ("texts", "words"):
        together = clearstory.classify(home / name, TEXTS, batch_size=3)
        alone = [clearstory.classify(home / name, [text], batch_size=1)[0] for text in TEXTS]
        for one, other in zip(together, alone, strict=True):
            parts = zip(one.labels + one.words, other.labels + other.words, strict=True)
            assert all(a.label == b.label and a.probability == pytest.approx(b.probability, abs=1e-5) for a, b in parts)


def test_texts_may_lie_in_files(home: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "texts.txt").write_text("the cat\n\na bird\n", encoding="utf-8")
    (tmp_path / "texts.jsonl").write_text('{"text": "a", "mine": "the cat"}\n', encoding="utf-8")
    (tmp_path / "old.txt").write_bytes(b"the caf\xe9\n")

    def texts(*words: Any) -> list[str]:
        return [each["text"] for each in json.loads(cli("classify", home / "texts", *words, "--json").out)["texts"]]

    assert texts("Dogs", "--input", tmp_path / "texts.txt") == ["Dogs", "the cat", "a bird"]
    assert texts(tmp_path / "texts.txt") == ["the cat", "a bird"]
    assert texts("--input", tmp_path / "texts.jsonl", "--text-field", "mine") == ["the cat"]
    assert "not UTF-8" in cli("classify", home / "texts", "--input", tmp_path / "old.txt").err
    assert texts("--input", tmp_path / "old.txt", "--errors", "replace") == ["the caf\ufffd"]
    assert "there is no file" in cli("classify", home / "texts", "--input", tmp_path / "nowhere.txt").err


def test_a_text_that_is_too_long_is_refused_or_cut(home: Path, cli: Cli) -> None:
    long = "Dogs bark! " + "the cat sat on a mat. " * 8
    with pytest.raises(ContextOverflow, match="pass --truncate right"):
        clearstory.classify(home / "texts", long)
    for name in ("texts", "words"):
        left, right = (clearstory.classify(home / name, long, truncate=end)[0] for end in ("left", "right"))
        assert left != right
        if name == "words":
            for found, position in ((left, 0), (right, -1)):
                assert [word.word for word in found.words] == long.split()
                assert found.words[position] == WordLabel(long.split()[position])  # cut off
                assert found.words[-1 - position].label in LABELS
    assert cli("classify", home / "texts", long, "--truncate", "right").status == 0


def test_what_cannot_be_classified_is_refused(home: Path, made: Any, tmp_path: Path, cli: Cli) -> None:
    tokenizer = open_model(home / "texts").tokenizer
    bare = open_model(home / "texts").model.config.backbone
    save_model(tmp_path / "bare", build(bare, seed=1), tokenizer, ModelCard())
    for words, expected in (
        (
            (tmp_path / "bare", "the cat"),
            ("this model (encoder)", "no classification head"),
        ),
        ((made.run, "the cat"), ("this model (decoder)", "no classification head")),
        ((home / "texts",), ("there is no text",)),
        ((home / "texts", "the cat", "--device", "nowhere"), ("device is 'nowhere'",)),
        ((home / "texts", "the cat", "--batch-size", "0"), ("batch_size is 0",)),
    ):
        answer = cli("classify", *words)
        assert (answer.status, answer.out) == (1, "")
        assert len(answer.err.strip().splitlines()) == 1
        assert all(part in answer.err for part in expected), answer.err
    with pytest.raises(BadInput, match="there is no text"):
        clearstory.classify(home / "texts", [])


def test_its_page_says_how_it_is_used(home: Path, tmp_path: Path, cli: Cli) -> None:
    for name, task, command in (("texts", "text", "classify"), ("words", "token", "tag")):
        page = (home / name / "README.md").read_text(encoding="utf-8")
        assert f"pipeline_tag: {task}-classification" in page
        assert f"clearstory {command} FOLDER" in page
    assert "clearstory fill-mask" not in page
    found = json.loads(cli("convert", home / "texts", tmp_path / "same", "--json").out)
    assert (found["max_nats_difference"], open_model(tmp_path / "same").model.config.labels) == (0, LABELS)


def test_a_classifier_of_an_encoder_with_other_heads_leaves_them_out(home: Path, tmp_path: Path) -> None:
    backbone = open_model(home / "texts").model.config.backbone
    whole = build(replace(backbone, mlm_transform=True, unembed_bias=True, pooler=True), seed=1)
    model = SequenceClassifier(whole, LABELS, classifier_dropout=0.0)
    assert model.config == open_model(home / "texts").model.config
    assert torch.equal(model.pooler.weight, whole.pooler.weight)  # a pooler that was trained is taken over
    folder = save_model(tmp_path / "model", model, open_model(home / "texts").tokenizer, ModelCard())
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertForSequenceClassification"]
    assert clearstory.classify(folder, "the cat")[0].labels


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
def test_decoders_and_recurrent_models_label_texts(problem: Any, home: Path, tmp_path: Path) -> None:
    tokenizer = train_tokenizer("characters", TEXTS)
    lstm = RecurrentConfig(vocab=tokenizer.vocab, width=8, hidden_size=8, layers=1)
    gpt2 = replace(TINY_GPT2, vocab=tokenizer.vocab)
    for name, backbone in (("lstm", lstm), ("gpt2", gpt2)):
        model = SequenceClassifier(build(backbone, seed=1), LABELS, problem_type=problem).eval()
        with torch.no_grad():
            model.classifier.weight.mul_(50)
        folder = save_model(tmp_path / name, model, tokenizer, ModelCard(name=name))
        texts = TEXTS[:2]
        for text, found in zip(texts, clearstory.classify(folder, texts), strict=True):
            ids = list(encode_text(tokenizer, text, add_special_tokens=True).ids)
            logits = model.class_logits(TokenBatch.from_sequences([ids]))[0]
            values = {each.label: each.probability for each in found.labels}
            expected = {"regression": logits, "multi_label_classification": logits.sigmoid()}
            wanted = expected.get(problem, logits.softmax(-1)).tolist()
            assert [values[label] for label in LABELS] == pytest.approx(wanted, abs=1e-5)
