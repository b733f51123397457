"""Similarity search and semantic de-duplication: the same as by all cosines at once, and as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import TINY_GPT2

import clearstory
from clearstory.errors import BadInput, BadSetting
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.formats.sentence_writer import sentence_pipeline
from clearstory.models.build import build
from clearstory.recipes.inference import similarity_search
from clearstory.recipes.inference.similarity_search import group_duplicates, nearest
from clearstory.text.train_tokenizer import train_tokenizer

Cli = Callable[..., Any]

TEXTS = ["the cat sat", "a dog ran", "the cat sat", "the owl flew", "a dog ran far", "The end", "a dog ran"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder whose folder says nothing of vectors, and a file of texts."""
    home = tmp_path_factory.mktemp("search")
    tokenizer = train_tokenizer("characters", [" ".join(TEXTS)])
    model = build(replace(TINY_GPT2, vocab=tokenizer.vocab, context=32), seed=2)
    save_model(home / "model", model, tokenizer, ModelCard())
    prompts = sentence_pipeline(TINY_GPT2.width, prompts={"query": "the ", "document": "a "})
    save_model(home / "prompts", model, tokenizer, ModelCard(), sentence=prompts)
    (home / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return home


def test_blocks_find_what_all_cosines_find(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1100, 6)).astype(np.float32)
    vectors[500] = vectors[20]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    monkeypatch.setattr(similarity_search, "BLOCK", 100)
    scores, positions = nearest(vectors[:7], vectors, 4)
    order = np.argsort(-cosines[:7], axis=1, kind="stable")[:, :4]
    np.testing.assert_allclose(scores.numpy(), np.take_along_axis(cosines[:7], order, 1), atol=1e-6)
    assert positions[:, 0].tolist() == list(range(7))
    threshold, kept, expected = 0.93, list[int](), list[int]()
    assert np.abs(cosines - threshold).min() > 2e-6  # so that rounding decides nothing
    for row in range(len(vectors)):
        expected.append(next((at for at in kept if cosines[row, at] >= threshold), row))
        kept += [row] if expected[-1] == row else []
    assert 20 < len(kept) < len(vectors) - 20
    first, of_first = group_duplicates(vectors, threshold)
    assert list(first) == expected
    np.testing.assert_allclose(of_first, cosines[np.arange(len(first)), first], atol=1e-6)


def test_a_query_finds_the_most_similar_texts(folder: Path) -> None:
    found = clearstory.search(folder / "model", folder / "texts.txt", ["a dog ran", "the cat sat"], top=3)
    first, second = found.results
    assert {hit.position for hit in first.hits[:2]} == {2, 7}
    assert first.hits[0].score == pytest.approx(1, abs=1e-5)
    assert second.hits[0].text == "the cat sat"
    assert len(second.hits) == 3
    vectors = clearstory.embed(folder / "model", TEXTS, normalize=True).vectors
    assert [hit.score for hit in first.hits] == pytest.approx(sorted(vectors @ vectors[1], reverse=True)[:3], abs=1e-5)
    assert found.pooling == "last"
    assert found.note is not None
    assert "last token" in found.note


def test_prompts_of_queries_and_of_texts(folder: Path) -> None:
    found = clearstory.search(folder / "prompts", ["cat"], "dog").results[0].hits[0].score
    query, text = clearstory.embed(folder / "model", ["the dog", "a cat"], pooling="mean", normalize=True).vectors
    assert found == pytest.approx(query @ text, abs=1e-5)
    both = clearstory.search(folder / "prompts", ["cat"], "cat", prompt="query").results[0].hits[0].score
    assert both == pytest.approx(1, abs=1e-5)


def test_duplicates_are_left_out(folder: Path) -> None:
    found = clearstory.deduplicate(folder / "model", folder / "texts.txt", threshold=0.9999)
    assert found.groups == ((0, 2), (1, 6))
    assert [TEXTS[at] for at in found.kept] == list(dict.fromkeys(TEXTS))


def test_the_command_prints_and_writes_what_it_found(cli: Cli, folder: Path, tmp_path: Path) -> None:
    model, texts = folder / "model", folder / "texts.txt"
    printed = cli("embed", model, texts, "--query", "a dog ran", "--top", "2")
    assert sorted(line.split(maxsplit=2) for line in printed.out.splitlines()) == [
        ["1.0000", "2", "a dog ran"], ["1.0000", "7", "a dog ran"],
    ]  # fmt: skip
    assert "last token" in printed.err
    for suffix in ("jsonl", "csv"):
        out = tmp_path / f"found.{suffix}"
        answer = cli("embed", model, texts, "--query", "a dog ran", "--query", "The end", "--top", "2", "--out", out)
        assert answer.status == 0
        with out.open(encoding="utf-8") as file:
            records = [json.loads(line) for line in file] if suffix == "jsonl" else list(csv.DictReader(file))
        assert [each["query"] for each in records] == ["a dog ran", "a dog ran", "The end", "The end"]
        assert int(records[2]["position"]) == 6
    result = json.loads(cli("embed", model, texts, "--duplicates", "0.9999", "--json").out)
    assert result["removed"] == 2
    assert [[hit["position"] for hit in group] for group in result["groups"]] == [[1, 3], [2, 7]]
    answer = cli("embed", model, texts, "--duplicates", "0.9999", "--out", tmp_path / "kept.txt")
    assert "5 of 7 texts kept; 2 are duplicates of an earlier one (cosine 0.9999 or more), in 2 groups" in answer.err
    assert (tmp_path / "kept.txt").read_text().splitlines() == list(dict.fromkeys(TEXTS))
    cli("embed", model, texts, "--duplicates", "0.9999", "--out", tmp_path / "groups.jsonl")
    groups = [json.loads(line)["group"] for line in (tmp_path / "groups.jsonl").read_text().splitlines()]
    assert groups == [1, 2, 1, 4, 5, 6, 2]
    cli("embed", model, texts, "--out", tmp_path / "vectors.npy")
    cli("embed", model, texts, "--out", tmp_path / "vectors.csv")
    vectors = clearstory.embed(model, texts).vectors
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), vectors)
    with (tmp_path / "vectors.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    np.testing.assert_allclose(np.array([row[1:] for row in rows], dtype=np.float32), vectors, atol=1e-6)


def test_what_cannot_be_searched_is_one_sentence(cli: Cli, folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    model, texts = folder / "model", folder / "texts.txt"
    for words, expected in (
        ((empty, "--query", "a dog"), "there is no text"),
        ((empty, "--duplicates", "0.9"), "there is no text"),
        ((texts, "--query", " "), "a query is empty"),
        ((texts, "--query", "a dog", "--top", "0"), "top is 0"),
        ((texts, "--top", "3"), "there is no query"),
        ((texts, "--query", "a dog", "--duplicates", "0.9"), "give one of them"),
        ((texts, "--duplicates", "1.5"), "duplicates is 1.5"),
        ((texts, "--query", "a dog", "--normalize"), "which use cosines"),
        ((texts, "--query", "a dog", "--out", tmp_path / "found.txt"), "its suffix must be .jsonl, .csv or .tsv"),
        ((texts, "--query", "a dog " * 9), "--truncate right"),
    ):
        answer = cli("embed", model, *words)
        assert answer.status in (1, 2), words
        assert expected in answer.err
        assert len(answer.err.strip().splitlines()) == 1
        assert answer.out == ""
    with pytest.raises(BadInput, match="a query is empty"):
        clearstory.search(model, texts, [])
    with pytest.raises(BadSetting, match="top is 0"):
        clearstory.search(model, texts, "a", top=0)
