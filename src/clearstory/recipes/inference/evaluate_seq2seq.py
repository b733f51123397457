"""Writers: how well an encoder-decoder foresees what is made of sources: given pairs, or spans dropped from a text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, CannotDo
from clearstory.metrics import Score
from clearstory.models.base import inference_mode
from clearstory.text.document import Document
from clearstory.text.documents import is_parallel, read_documents
from clearstory.text.token_dataset import encode_documents
from clearstory.text.sentinels import sentinels
from clearstory.text.settings import DataSettings
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.objectives.table import OBJECTIVES
from clearstory.training.settings import TrainingSettings


def evaluate_seq2seq(
    network: Any,
    tokenizer: Tokenizer,
    sources: Sequence[str | Path],
    texts: Sequence[str] | None,
    data: DataSettings | None,
    limit: int | None,
) -> tuple[Score, int, bool, float]:
    """Nats of all targets, of pairs where the sources are pairs, else of spans dropped from running text, always the
    same; how many pairs or documents there were, whether the tokens spell them exactly, and the seconds it took.

    Raises CannotDo for running text and a model that knows no sentinels, BadInput for text that is too short.
    """
    data = data or DataSettings()
    pairs = texts is None and (data.pairs or is_parallel(sources, data))
    if not pairs and not sentinels(tokenizer):
        raise CannotDo(
            "this model rewrites sources and was not taught to fill gaps in running text; give pairs of a source and "
            "its target, as .tsv or .jsonl"
        )
    read = read_documents(sources, replace(data, pairs=pairs)) if texts is None else ()
    documents = [Document(str(number), text) for number, text in enumerate(texts or ())] or list(read)
    rows = encode_documents(tokenizer, documents, multiple_documents=pairs)
    if len(rows) < 10:
        raise BadInput(f"{len(rows):,} tokens are too few to foresee any of them from the others; give more text")
    objective: Any = OBJECTIVES["rewrite" if pairs else "denoise"].make(tokenizer, TrainingSettings())
    if network.config.decoder_start_token_id is not None:
        objective = replace(objective, begin=network.config.decoder_start_token_id)
    began = time.perf_counter()
    with inference_mode(network):
        score: Score = objective.look(network, rows, network.context, limit)
    documents_read = rows.documents // 2 if pairs else rows.documents
    return score, documents_read, rows.bytes == rows.text_bytes, time.perf_counter() - began
