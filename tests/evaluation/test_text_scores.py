"""Scores of generated texts: those of sacrebleu and rouge-score, with intervals and paired comparisons."""

from __future__ import annotations

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from clearstory.errors import BadInput
from clearstory.evaluation.text_scores import summary_scores, translation_scores

TEXTS = ["the cat sat on the mat .", "He is here", "it rains a lot today", "nothing of it"]
REFERENCES = [["the cat sat on a mat ."], ["He was here.", "He is here"], ["today it rains"], ["something else", "no"]]


def test_translation_scores_are_those_of_sacrebleu() -> None:
    scores = translation_scores(TEXTS, REFERENCES)
    streams = [[own[at] if at < len(own) else None for own in REFERENCES] for at in range(2)]
    bleu, chrf, ter = sacrebleu.BLEU(), sacrebleu.CHRF(), sacrebleu.TER()
    wanted = [each.corpus_score(TEXTS, streams).score for each in (bleu, chrf, ter)]
    assert list(scores.values().values()) == pytest.approx(wanted)
    assert list(scores.signatures().values()) == [str(each.get_signature()) for each in (bleu, chrf, ter)]
    assert "tok:13a" in scores.signatures()["bleu"]
    lower = translation_scores(["THE CAT sat down"], [["the cat sat down"]], tokenize="none", lowercase=True)
    assert lower.values() == pytest.approx({"bleu": 100, "chrf": 100, "ter": 0})
    for name, (low, high) in scores.intervals().items():
        assert low <= scores.values()[name] <= high


def test_summaries_are_compared_with_the_reference_of_the_best_rouge_1() -> None:
    # The second reference has the higher ROUGE-1 (3 of 4 words), and a lower ROUGE-2 than the first.
    text, references = "a b c d", ["a b x y", "d c b q"]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    wanted = scorer.score(references[1], text)
    assert scorer.score(references[0], text)["rouge2"].fmeasure > wanted["rouge2"].fmeasure
    scores = summary_scores([text], [references])
    assert scores.values() == pytest.approx({name: 100 * each.fmeasure for name, each in wanted.items()})
    assert "refs:best-rouge1" in scores.signatures()["rouge1"]
    assert scores.intervals() == {}  # one text


def test_words_of_other_scripts_are_counted() -> None:
    scores = summary_scores(["кошка спит", "猫が眠る"], [["кошка спит"], ["猫が眠る"]])
    assert scores.values() == pytest.approx({"rouge1": 100, "rouge2": 100, "rougeL": 100})
    assert "words:unicode" in scores.signatures()["rouge1"]


def test_two_sets_of_texts_are_compared_on_the_same_resamples() -> None:
    own, copies = translation_scores(TEXTS, REFERENCES), translation_scores(["x"] * 4, REFERENCES)
    compared = own.compared_with(copies)
    assert set(compared) == {"bleu", "chrf", "ter"}
    assert compared["chrf"]["difference"] == pytest.approx(own.values()["chrf"] - copies.values()["chrf"])
    assert compared["chrf"]["low"] <= compared["chrf"]["difference"] <= compared["chrf"]["high"]
    assert compared["ter"]["difference"] < 0  # fewer edits
    assert compared["ter"]["better"] > 0.5
    assert own.compared_with(own)["bleu"] == {"difference": 0, "low": 0, "high": 0, "better": 0}
    with pytest.raises(BadInput, match="2 texts cannot be compared with the references of 1"):
        summary_scores(["a", "b"], [["a"]])
