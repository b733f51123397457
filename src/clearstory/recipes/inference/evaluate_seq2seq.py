"""Evaluation of an encoder-decoder: on pairs of source and target, or on spans dropped from running text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clearstory.errors import BadInput, CannotDo
from clearstory.metrics import Score
from clearstory.models.base import inference_mode
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.text.document import Document
from clearstory.text.documents import is_parallel, read_documents
from clearstory.text.sentinels import sentinels
from clearstory.text.settings import DataSettings
from clearstory.text.token_dataset import encode_documents
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.objectives.table import OBJECTIVES, resolve_objective
from clearstory.training.settings import TrainingSettings


def evaluate_seq2seq(
    model: EncoderDecoder,
    tokenizer: Tokenizer,
    sources: Sequence[str | Path],
    texts: Sequence[str] | None,
    data: DataSettings | None,
    limit: int | None,
) -> tuple[Score, int, bool, float]:
    """Loss of all targets, the number of pairs or documents, whether tokens spell them exactly, and the seconds taken.

    Targets are those of pairs where the files have pairs, else spans dropped from running text, always the same ones.
    Raises CannotDo for running text and a model without sentinel tokens, BadInput for text that is too short.
    """
    data = data or DataSettings()
    pairs = texts is None and (data.pairs or is_parallel(sources, data))
    if not pairs and not sentinels(tokenizer):
        raise CannotDo(
            "this model was not trained with span corruption and cannot be evaluated on running text; give pairs of a "
            "source and its target, as .tsv or .jsonl"
        )
    if texts is None:
        documents = list(read_documents(sources, replace(data, pairs=pairs)))
    else:
        documents = [Document(str(number), text) for number, text in enumerate(texts)]
    dataset = encode_documents(tokenizer, documents, multiple_documents=pairs)
    if len(dataset) < 10:
        raise BadInput(f"{len(dataset):,} tokens are too few to predict any of them from the others; give more text")
    name = resolve_objective("auto", model.config.architecture, pairs)
    objective, _ = OBJECTIVES[name].make(tokenizer, TrainingSettings()).configure(model.config)
    started = time.perf_counter()
    with inference_mode(model):
        validation = objective.validate(model, dataset, model.config.context, limit)
    count = dataset.documents // 2 if pairs else dataset.documents
    return validation.score, count, dataset.bytes == dataset.text_bytes, time.perf_counter() - started
