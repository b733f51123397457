"""The tagger: counts by hand, suffixes of words, line ends, and the stated accuracy."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clearstory.cli.main import main
from clearstory.errors import BadInput, BadSetting, CannotDo, ClearstoryError
from clearstory.formats.folders import open_model
from clearstory.models.base import TokenBatch
from clearstory.models.hmm.suffixes import (
    MAX_SUFFIX,
    PRIOR_COUNT,
    SuffixModel,
    count_suffix_tags,
    suffix_keys,
    word_shape,
)
from clearstory.models.hmm.tag_counts import interpolate_tag_ngrams
from clearstory.models.hmm.tagger import Tagger
from clearstory.recipes.inference.evaluate_task import evaluate_on_task
from clearstory.recipes.inference.tag import tag
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.recipes.training.loop import train_events
from clearstory.text.conllu import TaggedSentence
from conllus import TAGS, conllu, sentences


def trained(folder: Path, **more: Any) -> Path:
    """A tagger of the small language, trained as a user does."""
    file = conllu(folder / "small.conllu")
    settings = {
        "text": (str(file),), "out": folder / "run", "model": "hmm", "model.learn": "tags", "training.device": "cpu",
        "training.threads": 1, "training.precision": "fp32", "data.cache": str(folder / "cache"),
    }  # fmt: skip
    list(train_events(build_train_recipe({**settings, **more})))
    return folder / "run"


@pytest.fixture(scope="module", params=[2, 3])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("tagger"), **{"model.order": request.param})


def test_known_and_unknown_words_get_their_tags(run: Path) -> None:
    found = tag(run, "the dog barks loudly .\nThe BIRD zings zingly .\n")
    assert found.words[1] == ("The", "BIRD", "zings", "zingly", ".")
    assert found.tags == (("DET", "NOUN", "VERB", "ADV", "PUNCT"),) * 2


def test_a_tagger_opens_as_what_was_saved_and_is_a_language_model(run: Path) -> None:
    opened = open_model(run)
    assert opened.model.config.tags == TAGS
    assert opened.model.config.states == len(TAGS) + 1
    ids = opened.tokenizer.encode("the dog barks loudly .\nthe cat")  # type: ignore[union-attr]
    chances = opened.logits([ids])[0].exp()
    assert torch.allclose(chances.sum(-1), torch.ones(len(ids)), atol=1e-5)
    assert int(chances[4].argmax()) == opened.tokenizer.eos_token_id  # type: ignore[union-attr]  # after a full stop
    hidden, state = opened.model.forward(TokenBatch.from_sequences([ids]), opened.model.init_state())
    assert hidden.shape[-1] == opened.model.config.width == state.next.shape[-1]


def test_trigrams_depend_on_two_tags(tmp_path: Path) -> None:
    # x is A after B A and B after A A: a bigram cannot know.
    kinds = (TaggedSentence(("b", "a", "x"), ("B", "A", "A")), TaggedSentence(("a", "a", "x"), ("A", "A", "B")))
    told = random.Random(0).choices(kinds, k=200)
    both = {}
    for order in (2, 3):
        folder = tmp_path / str(order)
        folder.mkdir()
        file = conllu(folder / "pairs.conllu", told, documents=20)
        both[order] = tag(trained(folder, **{"model.order": order, "text": (str(file),)}), "b a x\na a x").tags
    assert both[3] == (("B", "A", "A"), ("A", "A", "B"))
    assert both[2] != both[3]


def test_deleted_interpolation_by_hand() -> None:
    # Tags 0 1, five times: every trigram is | | 0, | 0 1 or 0 1 |, each certain, and so is each bigram.
    bigrams, trigrams = interpolate_tag_ngrams([[0, 1]] * 5, 3)
    # Single tags: 5.5 of 16.5 each; without one case (5.5 - 1) / (16.5 - 1) = 0.29 < (5 - 1) / (5 - 1) = 1.
    # Bigrams win all 15 cases (of 15 trigrams, each vote beginning at 1): 1 / 17 of one, 16 / 17 of two.
    assert bigrams[0, 1] == pytest.approx(1 / 17 / 3 + 16 / 17)
    assert bigrams[0, 0] == pytest.approx(1 / 17 / 3)
    # Trigrams are as good and longer, and get them: 1 / 18, 1 / 18, 16 / 18.
    assert trigrams[2, 0, 1] == pytest.approx(1 / 18 / 3 + 1 / 18 + 16 / 18)
    # Unseen: as after 1 alone; and after a line end what was before it is forgotten.
    np.testing.assert_allclose(trigrams[1, 1], bigrams[1])
    np.testing.assert_allclose(trigrams[0, 2], trigrams[2, 2])
    np.testing.assert_allclose(trigrams.sum(-1), 1)
    np.testing.assert_allclose(bigrams.sum(-1), 1)


def test_suffix_probabilities_by_hand() -> None:
    told = [TaggedSentence(("aing", "bing"), ("V", "V")), TaggedSentence(("cing", "the"), ("N", "D"))]
    found = count_suffix_tags(told, {"D": 0, "N": 1, "V": 2})
    general, plain, *_ = suffix_keys("zing", False)
    assert found[general].tolist() == found[plain].tolist() == [1, 1, 2]
    ing = SuffixModel(np.array(list(found)), np.stack(list(found.values()))).tag_probs("zing", False)
    # any word: (1 + 1, 1 + 1, 2 + 1) / 7; plain: ([1, 1, 2] + 3 p) / 7; g, ng, ing: each ([0, 1, 2] + 3 p) / 6
    p = np.array([2, 2, 3]) / 7
    p = (np.array([1, 1, 2]) + PRIOR_COUNT * p) / (4 + PRIOR_COUNT)
    for _ in range(3):
        p = (np.array([0, 1, 2]) + PRIOR_COUNT * p) / (3 + PRIOR_COUNT)
    np.testing.assert_allclose(ing, p)


def test_suffix_keys_go_from_general_to_specific() -> None:
    keys = suffix_keys("Übermäßigkeiten", True)
    assert len(keys) == 1 + 1 + MAX_SUFFIX
    assert {len(key) for key in keys} == {MAX_SUFFIX + 1}
    assert "".join(map(chr, keys[-1][1:])) == "keiten"
    assert len({word_shape(word, False) for word in ("Ab", "AB", "ab", "a-b", "12", "a1", "...")}) == 7
    assert word_shape("Ab", True) != word_shape("Ab", False)


def test_paths_avoid_impossible_states(run: Path) -> None:
    """Each word gets a tag, however strange: the state of the line end emits no word."""
    for text in ("<eos> <unk> <eos>", "😀 ﷽ \u0301", "a" * 5000):
        found = tag(run, text)
        assert set(found.tags[0]) <= set(TAGS)


def test_a_batch_is_tagged_as_each_sentence_alone(run: Path) -> None:
    opened: Any = open_model(run)
    tagger, told = Tagger(opened.model, opened.tokenizer), [each.words for each in sentences(30, seed=5)]
    assert tagger.tag(told) == [tagger.tag([one])[0] for one in told]
    assert tagger.tag([]) == []


def test_the_score_of_tags_by_hand(run: Path, tmp_path: Path) -> None:
    told = [
        TaggedSentence(("the", "dog", "barks", "."), ("DET", "NOUN", "VERB", "PUNCT")),
        TaggedSentence(("the", "zot", "."), ("DET", "VERB", "PUNCT")),  # wrong on purpose: the tagger says NOUN
    ]
    found = evaluate_on_task(run, (str(conllu(tmp_path / "gold.conllu", told)),), "tag")
    unknown = found.details["unknown_words"]
    assert unknown == {"count": 1, "accuracy": 0.0, "accuracy_of_known": 1.0}
    assert found.metrics["accuracy"] == 6 / 7
    # DET and PUNCT 1; NOUN 2 · 1 / (1 + 2); VERB 2 · 1 / (2 + 1)
    assert found.metrics["macro_f1"] == pytest.approx((1 + 1 + 2 / 3 + 2 / 3) / 4)


def test_the_commands(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gold = conllu(tmp_path / "gold.conllu", sentences(8, seed=9))
    assert main(["evaluate", str(run), str(gold), "--task", "tag", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["metrics"]["accuracy"] > 0.95
    assert said["examples"] == 8
    assert main(["tag", str(run), str(gold), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["tokens"]) == len(said["tags"]) == sum(said["sentences"])
    assert main(["tag", str(run), "the dog barks ."]) == 0
    assert capsys.readouterr().out == "the\tDET\ndog\tNOUN\nbarks\tVERB\n.\tPUNCT\n\n"
    plain = tmp_path / "plain.txt"
    plain.write_bytes(b"the dog\n\nbarks \xff .\n")
    assert main(["tag", str(run), str(plain), "--errors", "replace", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sentences"] == [2, 3]


def test_the_same_text_makes_the_same_model(run: Path, tmp_path: Path) -> None:
    first = open_model(run).model
    second = open_model(trained(tmp_path, **{"model.order": first.config.order})).model
    assert all(torch.equal(each, second.state_dict()[name]) for name, each in first.state_dict().items())


@pytest.mark.parametrize(
    ("more", "kind", "sentence"),
    [
        ({"tokenizer": "bytes"}, BadSetting, "tags, which needs words as tokens, but the tokenizer is bytes"),
        ({"text": (__file__,)}, BadInput, "has no tags; give .conllu files"),
    ],
)
def test_texts_without_tags_are_refused(
    tmp_path: Path, more: dict[str, Any], kind: type[ClearstoryError], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        trained(tmp_path, **more)


def test_invalid_requests_are_refused(run: Path, tmp_path: Path) -> None:
    from clearstory.formats.folders import save_model
    from clearstory.formats.model_card import ModelCard
    from clearstory.text.train_tokenizer import train_tokenizer
    from tiny import MODELS

    with pytest.raises(BadInput, match="no word to tag"):
        tag(run, " \n")
    with pytest.raises(BadInput, match="there is no file"):
        tag(run, tmp_path / "nowhere.txt")
    folder = save_model(
        tmp_path / "plain", MODELS["lstm"](), train_tokenizer("characters", ["abcdefghijklmnop"]), ModelCard()
    )
    with pytest.raises(CannotDo, match=r"this model \(lstm\) has no tags; train a tagger"):
        tag(folder, "a")
    assert main(["tag", str(folder), "a"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("order", "least"), [(2, 0.915), (3, 0.923)])
def test_english_web_treebank(data: Path, tmp_path: Path, order: int, least: float) -> None:
    """TnT's method; the most frequent tag of each word reaches 0.8613 on the dev set."""
    folder = data / "ud-english-ewt"
    run = trained(tmp_path, text=(str(folder / "train.conllu.gz"),), **{"model.order": order})
    found = evaluate_on_task(run, (str(folder / "dev.conllu.gz"),), "tag")
    words = sum(label["support"] for label in found.details["labels"])
    assert found.metrics["accuracy"] >= least
    assert math.isclose(found.details["unknown_words"]["count"] / words, 0.087, abs_tol=0.005)
