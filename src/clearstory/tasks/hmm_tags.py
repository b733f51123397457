"""Tags by a hidden Markov model, predicted and scored as those of token classifiers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clearstory.models.hmm.tagger import Tagger
from clearstory.tasks.base import evaluate_predictions
from clearstory.tasks.data.chunk_tags import is_chunk_scheme
from clearstory.tasks.data.examples import LabeledData, LabeledWords
from clearstory.tasks.evaluation import TaskEvaluation
from clearstory.tasks.tag import Tag
from clearstory.tasks.word_predictions import WordPredictions


def single_words(words: Sequence[str]) -> tuple[str, ...]:
    """Words without white space within them, which divides the words of a hidden Markov model.

    >>> single_words(("10 000", "men"))
    ('10_000', 'men')
    """
    return tuple("_".join(word.split()) or "_" for word in words)


def predict_tags(tagger: Tagger, sentences: Sequence[Sequence[str]]) -> list[WordPredictions]:
    """The most likely sequence of tags of each sentence, and the posteriors of all tags of its words."""
    found = tagger.predict([single_words(words) for words in sentences])
    return [WordPredictions(probabilities, ids) for ids, probabilities in found]


def evaluate_tagger(tagger: Tagger, data: LabeledData[LabeledWords]) -> TaskEvaluation:
    """The scores of a tagger on examples; `unknown_words` of the details has the accuracy of known and of unknown
    words, or None if there are none.
    """
    task = Tag(tagger.tags, None, is_chunk_scheme(tagger.tags))
    rows = task.rows_without_windows(data.examples)
    predictions = predict_tags(tagger, [each.words for each in data.examples])
    scores = evaluate_predictions(task, predictions, rows, data)
    words = [word for each in data.examples for word in single_words(each.words)]
    right = np.concatenate([each.ids for each in predictions]) == np.concatenate(task.targets(rows))
    known = np.array([tagger.ids[word] != tagger.tokenizer.unk_token_id for word in words])
    return replace(scores, details={**scores.details, "unknown_words": unknown_words(right, known)})


def unknown_words(right: Any, known: Any) -> dict[str, float | None]:
    """How many words are unknown, and the accuracy of known and of unknown ones, (words,)."""
    return {
        "count": int((~known).sum()),
        "accuracy": float(right[~known].mean()) if (~known).any() else None,
        "accuracy_of_known": float(right[known].mean()) if known.any() else None,
    }
