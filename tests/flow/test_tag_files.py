"""Tags of files: what is read, what is written, and that every command predicts the same; with an HMM of tags."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import TINY_LSTM

import clearstory
from clearstory.errors import BadInput, BadSetting, CannotDo, ClearstoryError, ContextOverflow
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.heads import TokenClassifier
from clearstory.models.transformer.presets import MINILM
from clearstory.recipes.finetuning.loop import finetune_events
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import build_settings
from clearstory.tasks.data.labeled_words import read_labeled_words
from clearstory.text.train_tokenizer import train_tokenizer

Cli = Callable[..., Any]
Rows = list[list[tuple[str, str]]]

TAGS = {
    "O": ("the", "sings", "reads", "."),
    "B-PER": ("Ada", "Grace"),
    "I-PER": ("Lovelace", "Hopper"),
    "B-LOC": ("Rome", "York"),
}
LABELS = ("O", "B-LOC", "B-PER", "I-PER")
LINES = ("Ada Lovelace  sings .", "the Hopper reads Rome")


def sentences(count: int, seed: int = 0) -> Rows:
    draw = random.Random(seed)
    found: Rows = []
    for _ in range(count):
        kinds = [draw.choice(("O", "B-LOC", "B-PER")) for _ in range(draw.randint(2, 5))]
        tags = [tag for kind in kinds for tag in ((kind, "I-PER") if kind == "B-PER" else (kind,))]
        found.append([(draw.choice(TAGS[tag]), tag) for tag in tags])
    return found


def conll(path: Path, rows: Rows) -> Path:
    text = "\n\n".join("\n".join(f"{word} {tag}" for word, tag in sentence) for sentence in rows)
    path.write_text(text + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of tagged words, an HMM of their tags, and an untrained encoder with a head; no test changes them."""
    home = tmp_path_factory.mktemp("tags")
    conll(home / "train.conll", sentences(120))
    conll(home / "dev.conll", sentences(30, seed=1))
    run(home, home / "counted")
    lines = [" ".join(word for word, _ in each) for each in sentences(120)]
    tokenizer = train_tokenizer("wordpiece:80", lines)
    shape = {"context": 14, "width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 32}
    backbone = build(replace(MINILM, **shape, vocab=tokenizer.vocab), seed=3)
    for name, scheme in (("bio", "bio"), ("argmax", "")):
        torch.manual_seed(2)
        model = TokenClassifier(backbone, LABELS, tag_scheme=scheme)  # type: ignore[arg-type]
        torch.nn.init.normal_(model.classifier.weight)
        save_model(home / name, model.eval(), tokenizer, ModelCard(name=name))
    return home


def run(home: Path, out: Path, data: str = "train.conll", **more: Any) -> Any:
    values = {"model": "hmm", "data": (str(home / data),), "task": "tag", "out": out, **more}
    values.setdefault("validation", str(home / "dev.conll"))
    *_, result = finetune_events(build_settings(FinetuneRecipe, values))
    return result


@pytest.mark.parametrize("name", ["counted", "bio", "argmax"])
def test_every_command_predicts_the_same_tags(name: str, home: Path, cli: Cli) -> None:
    dev = sentences(30, seed=1)
    tagged = clearstory.tag(home / name, home / "dev.conll", stride=4)
    assert tagged.words == tuple(tuple(word for word, _ in each) for each in dev)
    scores = json.loads(
        cli("evaluate", home / name, home / "dev.conll", "--task", "tag", "--stride", "4", "--json").out
    )
    gold = [[tag for _, tag in each] for each in dev]
    right, guessed, true = (sum(map(len, each)) for each in zip(*map(entities_in, gold, tagged.tags), strict=True))
    assert scores["metrics"]["f1"] == pytest.approx(2 * right / (guessed + true))
    if name != "counted":
        lines = [" ".join(words) for words in tagged.words]
        found = clearstory.classify(home / name, lines, stride=4)
        assert [tuple(word.label for word in each.words) for each in found] == list(tagged.tags)
    alone = [clearstory.tag(home / name, " ".join(words), stride=4).tags[0] for words in tagged.words[:5]]
    assert alone == list(tagged.tags[:5])


def entities_in(gold: list[str], tags: tuple[str, ...]) -> tuple[set[Any], set[Any], set[Any]]:
    from clearstory.evaluation.entities import find_entities

    found, true = set(find_entities(tags)), set(find_entities(gold))
    return found & true, found, true


def test_broken_entities_are_not_predicted_unless_the_head_is_of_another_scheme(home: Path, tmp_path: Path) -> None:
    def breaks(name: str) -> int:
        tags = clearstory.tag(home / name, home / "dev.conll", stride=4).tags
        pairs = [pair for each in tags for pair in zip(("O", *each[:-1]), each, strict=True)]
        return sum(tag == "I-PER" and before not in ("B-PER", "I-PER") for before, tag in pairs)

    assert breaks("bio") == breaks("counted") == 0
    assert breaks("argmax") > 0
    assert open_model(home / "bio").model.config.tag_scheme == "bio"
    odd = shutil.copytree(home / "bio", tmp_path / "odd", ignore=shutil.ignore_patterns("checksums.json"))
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps({**config, "clearstory_tag_scheme": "odd"}))
    with pytest.raises(ClearstoryError, match="clearstory_tag_scheme"):
        open_model(odd)


def test_an_hmm_of_tags_is_scored_as_others_are(home: Path, tmp_path: Path, cli: Cli) -> None:
    result = run(home, tmp_path / "run")
    assert result.metrics["f1"] > 0.9
    low, high = result.intervals["f1"]
    assert low <= result.metrics["f1"] <= high
    report = json.loads((tmp_path / "run" / "report.json").read_text())["validation"]
    assert report["metrics"] == result.metrics
    assert report["details"]["unknown_words"]["count"] == 0
    assert (tmp_path / "run" / "report.html").is_file()
    unseen = conll(tmp_path / "unseen.conll", [[("the", "O"), ("Zaragoza", "B-LOC")]])
    printed = cli("evaluate", tmp_path / "run", unseen, "--task", "tag").out
    assert "of 1 out-of-vocabulary words" in printed


def test_what_is_written_is_read_again(home: Path, tmp_path: Path, cli: Cli) -> None:
    tagged = clearstory.tag(home / "counted", home / "dev.conll")
    for suffix in ("conll", "jsonl", "csv", "tsv"):
        out = tmp_path / f"tags.{suffix}"
        answer = cli("tag", home / "counted", home / "dev.conll", "--out", out, "--json")
        assert json.loads(answer.out)["count"] == 30
        found = read_labeled_words(out)
        assert tuple(each.words for each in found.examples) == tagged.words
        assert tuple(each.tags for each in found.examples) == tagged.tags
    records = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    assert all(each["probabilities"][0] > 0 for each in records)
    assert cli("tag", home / "counted", LINES[0], "--out", tmp_path / "tags.txt").status == 2


def test_words_and_texts_of_files(home: Path, tmp_path: Path, cli: Cli) -> None:
    words = [line.split() for line in LINES]
    files = {
        "plain.txt": "\n\n".join(LINES) + "\n",
        "one.conll": "\n\n".join("\n".join(each) for each in words),
        "ids.iob2": "\n".join("".join(f"{n}\t{w}\tO\t-\n" for n, w in enumerate(each, 1)) for each in words),
        "tokens.jsonl": "".join(json.dumps({"tokens": each, "text": "not these"}) + "\n" for each in words),
        "texts.csv": "id,text\n" + "".join(f"{n},{line}\n" for n, line in enumerate(LINES)),
        "lines.jsonl": "".join(json.dumps({"line": line, "text": ""}) + "\n" for line in LINES),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        more = ("--text-field", "line") if name == "lines.jsonl" else ()
        found = json.loads(cli("tag", home / "counted", tmp_path / name, "--json", *more).out)
        assert found["tokens"] == [*words[0], *words[1]], name
        assert found["sentences"] == [4, 4]
    both = cli("tag", home / "counted", LINES[0], "--input", tmp_path / "plain.txt", "--json")
    assert json.loads(both.out)["sentences"] == [4, 4, 4]
    device = cli("tag", home / "bio", LINES[1], "--device", "cpu", "--batch-size", "1", "--json")
    assert json.loads(device.out)["sentences"] == [4]


def test_entities_are_spans_of_the_text(home: Path) -> None:
    found = clearstory.tag(home / "counted", LINES[0])
    [entity] = found.entities[0]
    assert (entity.start, entity.end, entity.text, entity.label) == (0, 12, "Ada Lovelace", "PER")
    assert entity.score == pytest.approx(np.mean(found.probabilities[0][:2]))
    spaced = clearstory.tag(home / "counted", "the  Ada   Lovelace")
    assert spaced.entities[0][0].text == "Ada   Lovelace"


def test_long_sentences_are_refused_cut_or_read_in_windows(home: Path, tmp_path: Path) -> None:
    text = " ".join(["the"] * 20)
    file = tmp_path / "long.txt"
    file.write_text(f"the\n{text}\n")
    with pytest.raises(ContextOverflow, match=r"long\.txt, line 2.* context is 14"):
        clearstory.tag(home / "bio", file)
    whole = clearstory.tag(home / "bio", text, stride=6)
    assert all(value > 0 for value in whole.probabilities[0])
    cut = clearstory.tag(home / "bio", text, truncate="right")
    assert (cut.tags[0][-1], cut.probabilities[0][-1]) == ("O", 0)


def test_what_is_refused(home: Path, tmp_path: Path) -> None:
    def refused(error: type[ClearstoryError], match: str, **changes: Any) -> None:
        with pytest.raises(error, match=match):
            run(home, tmp_path / "refused", **changes)
        assert not list((tmp_path / "refused").glob("[a-z]*"))

    refused(BadSetting, "lora does not apply to hmm, whose tags are counted", lora={"rank": 2})
    refused(BadSetting, "training does not apply to hmm", training={"learning_rate": 0.1})
    refused(BadSetting, "resume does not apply to hmm", resume=True)
    refused(CannotDo, "give hmm as the model, and all files", model=str(home / "counted"))
    lstm = save_model(
        tmp_path / "lstm", build(TINY_LSTM), train_tokenizer("characters", ["abcdefghijklm"]), ModelCard()
    )
    with pytest.raises(CannotDo, match=r"has no tags; train a tagger .* --task tag"):
        clearstory.tag(lstm, "a")
    (tmp_path / "words.jsonl").write_text('{"tokens": ["a"]}\n{"tokens": "a b"}\n')
    with pytest.raises(BadInput, match=r"words\.jsonl, line 2: 'tokens' is not a list of words"):
        clearstory.tag(home / "counted", tmp_path / "words.jsonl")
    with pytest.raises(BadSetting, match="batch_size is 0"):
        clearstory.tag(home / "counted", "a", batch_size=0)
    with pytest.raises(BadInput, match="there is no file"):
        clearstory.tag(home / "counted", tmp_path / "nowhere.txt")


def test_entities_are_those_of_the_pipeline_of_transformers(home: Path) -> None:
    """Without a scheme, tags are argmaxes as there; words of one piece or more are read at the first."""
    transformers = pytest.importorskip("transformers")
    folder = str(home / "argmax")
    ner = transformers.pipeline(
        "token-classification", model=folder, tokenizer=folder, aggregation_strategy="first", device="cpu"
    )
    texts = [" ".join(word for word, _ in each if word.isalpha()) for each in sentences(12, seed=2)]
    texts = [text for text in texts if len(text.split()) in (2, 3, 4)]
    found = clearstory.tag(home / "argmax", texts, truncate="right").entities
    assert sum(map(len, found)) > 5
    for ours, theirs in zip(found, ner(texts), strict=True):
        assert [(each.label, each.start, each.end) for each in ours] == [
            (each["entity_group"], each["start"], each["end"]) for each in theirs
        ]
        np.testing.assert_allclose([each.score for each in ours], [each["score"] for each in theirs], atol=1e-5)


def test_a_run_folder_may_have_the_name_of_its_preset(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run(home, Path("hmm"), overwrite=True)
    run(home, Path("bert-tiny"), model="bert-tiny", steps=1, training={"threads": 1, "precision": "fp32"})
    again = {"steps": 2, "resume": True, "training": {"threads": 1, "precision": "fp32"}}
    assert run(home, Path("bert-tiny"), model="bert-tiny", **again).steps == 2
