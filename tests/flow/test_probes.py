"""Task probes: grammar, facts, reasoning and bias from the files that a folder has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import clearstory
from clearstory.errors import BadInput
from clearstory.formats.folders import open_model

GOLDEN = Path(__file__).parent.parent / "golden"


def write(file: Path, *rows: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    write(tmp_path / "grammar.jsonl", *[{"sentence_good": "the cat sat.", "sentence_bad": "sat the cat."}] * 3)
    (tmp_path / "facts.txt").write_text("the cat sat on the mat\na dog sat\n")
    write(tmp_path / "facts-cloze.jsonl", {"text": "the cat", "answer": "sat"})
    write(
        tmp_path / "reasoning" / "quiz.jsonl", {"question": "the cat?", "choices": ["sat", "mat", "dog"], "answer": 0}
    )
    write(tmp_path / "bias.jsonl", {"sent_more": "the cat sat.", "sent_less": "the dog sat."})
    return tmp_path


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "gru", "ngram"])
def test_all_probes_in_one_table(name: str, probes: Path) -> None:
    found: Any = clearstory.evaluate(GOLDEN / name, task="probes", probe_files=probes, out=probes / "out")
    assert [(each.probe, each.metric, each.chance, each.examples) for each in found.scores] == [
        ("grammar", "acc", 0.5, 3),
        ("facts", "acc", 0.0, 1),
        ("facts", "acc", 0.0, 2),
        ("reasoning", "acc_norm", pytest.approx(1 / 3), 1),
        ("bias", "stereotype", 0.5, 1),
    ]
    assert found.skipped == (f"weat: {probes} has no file weat*.jsonl",)
    assert json.loads((probes / "out" / "probes.json").read_text())["probes"][0]["interval"] is not None


def test_an_encoder_is_asked_by_pseudo_likelihood_and_not_for_continuations(probes: Path) -> None:
    found: Any = clearstory.evaluate(GOLDEN / "BertForMaskedLM", task="probes", probe_files=probes)
    assert {each.probe: each.measure for each in found.scores} == dict.fromkeys(
        ("grammar", "bias"), "pseudo-likelihood"
    )
    assert any("no likelihood of a continuation" in sentence for sentence in found.skipped)


def test_the_likelier_sentence_decides(probes: Path) -> None:
    opened = open_model(GOLDEN / "GPT2LMHeadModel")
    found: Any = clearstory.evaluate(opened, task="probes", probe_files=probes)
    score = found.scores[0].value
    write(probes / "grammar.jsonl", {"sentence_good": "sat the cat.", "sentence_bad": "the cat sat."})
    turned: Any = clearstory.evaluate(opened, task="probes", probe_files=probes, limit=1)
    assert {score, turned.scores[0].value} == {0.0, 1.0}


def test_what_is_no_probe_is_told_with_its_line(probes: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    model = GOLDEN / "ngram"
    with pytest.raises(BadInput, match=r"has no probe files; their names begin with grammar\*"):
        clearstory.evaluate(model, task="probes", probe_files=probes / "reasoning")
    assert "give it with --probe-files" in cli("evaluate", model, "--task", "probes").last
    write(probes / "bias.jsonl", {"sent_more": "a b"})
    assert (
        "bias.jsonl, line 1 has no text 'sent_less'"
        in cli("evaluate", model, "--task", "probes", "--probe-files", probes).last
    )
    (probes / "bias.jsonl").unlink()
    (probes / "facts.txt").write_text("the cat\nword\n")
    assert (
        "facts.txt, line 2: 'word' is one word"
        in cli("evaluate", model, "--task", "probes", "--probe-files", probes).last
    )
