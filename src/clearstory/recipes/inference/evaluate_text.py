"""Evaluation on text: how well a model predicts it, in bits per byte; n-gram models are evaluated without torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from clearstory.errors import BadInput, CannotDo
from clearstory.evaluation.windows import WindowMode, has_targets, iter_scores, window_length_and_stride
from clearstory.formats.ngram_tables import open_ngram_tables
from clearstory.metrics import Score
from clearstory.models.capabilities import Capability, has_capability, require
from clearstory.models.ngram.tables import NGramTables
from clearstory.models.precision import Precision
from clearstory.recipes.inference.encoder_evaluation import EncoderEvaluation
from clearstory.recipes.inference.model_argument import ModelWithTokenizer
from clearstory.recipes.inference.text_evaluation import Evaluation
from clearstory.text.document import Document
from clearstory.text.documents import is_parallel, read_documents
from clearstory.text.read_notes import ReadNotes
from clearstory.text.sentinels import sentinels
from clearstory.text.settings import ReadSettings
from clearstory.text.start_tokens import bos_or_eos_token_id
from clearstory.text.token_dataset import TokenDataset, encode_documents
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.objectives.table import objective_spec, resolve_objective
from clearstory.training.settings import TrainingSettings

if TYPE_CHECKING:  # they import torch, which n-gram models are evaluated without
    from clearstory.models.base import LanguageModel
    from clearstory.models.transformer.encoder import Encoder
    from clearstory.models.transformer.encoder_decoder import EncoderDecoder


def evaluate_text(
    model: str | Path | ModelWithTokenizer,
    sources: Sequence[str | Path],
    texts: Sequence[str] | None,
    *,
    windows: WindowMode,
    stride: int | None,
    batch_size: int,
    limit: int | None,
    data: ReadSettings | None,
    precision: Precision,
    device: str | None,
    on_progress: Callable[[int, int], None] | None,
) -> Evaluation | EncoderEvaluation:
    """How well a model predicts the text of `sources`, or `texts`; see `evaluate`."""
    network, tokenizer = open_to_evaluate(model, precision, device)
    notes = ReadNotes()
    evaluation: Evaluation | EncoderEvaluation
    if texts is None:
        documents: Iterable[Document] = read_documents(sources, data, notes)
    else:
        documents = (Document(str(index), text) for index, text in enumerate(texts))
    if has_capability(network, Capability.SOURCE):
        evaluation = evaluate_seq2seq(cast("EncoderDecoder", network), tokenizer, sources, texts, data, limit, notes)
    elif has_capability(network, Capability.BIDIRECTIONAL):
        from clearstory.recipes.inference.evaluate_encoder import evaluate_encoder

        require(network, Capability.MLM_HEAD)
        encoder = cast("Encoder", network)
        evaluation = evaluate_encoder(encoder, tokenizer, documents, limit=limit, on_progress=on_progress)
    else:
        require(network, Capability.CAUSAL)
        evaluation = evaluate_causal(
            network if precision == "auto" else with_precision(network, precision, batch_size),
            tokenizer,
            documents,
            windows=windows,
            stride=stride,
            batch_size=batch_size,
            limit=limit,
            on_progress=on_progress,
        )
    return replace(evaluation, note=notes.text)


def open_to_evaluate(
    model: str | Path | ModelWithTokenizer, precision: Precision, device: str | None
) -> tuple[LanguageModel | NGramTables, Tokenizer]:
    """The model and its tokenizer; of a path to an n-gram model its tables, which need no torch."""
    if isinstance(model, str | Path) and precision == "auto" and device in (None, "cpu"):
        opened = open_ngram_tables(model)
        if opened is not None:
            return opened.model, opened.tokenizer
    from clearstory.recipes.inference.loading import load_model_and_tokenizer

    return load_model_and_tokenizer(model, device)


def with_precision(model: LanguageModel | NGramTables, precision: Precision, batch_size: int) -> LanguageModel:
    """The model with weights of another precision."""
    from clearstory.models.inference_model import inference_model

    return inference_model(cast("LanguageModel", model), precision, batch_size)


def without_gradients(model: object) -> AbstractContextManager[None]:
    """A block in which a model computes without gradients or dropout; tables have neither."""
    if isinstance(model, NGramTables):
        return nullcontext()
    from clearstory.models.base import inference_mode

    return inference_mode(model)


def evaluate_seq2seq(
    model: EncoderDecoder,
    tokenizer: Tokenizer,
    sources: Sequence[str | Path],
    texts: Sequence[str] | None,
    data: ReadSettings | None,
    limit: int | None,
    notes: ReadNotes,
) -> Evaluation:
    """How well an encoder-decoder predicts all targets given their sources; pairs are counted as documents.

    Targets are those of pairs where the files have pairs, else spans dropped from running text, always the same ones.
    Raises CannotDo for running text and a model without sentinel tokens, BadInput for text that is too short.
    """
    data = data or ReadSettings()
    pairs = texts is None and (data.pairs or is_parallel(sources, data))
    if not pairs and not sentinels(tokenizer):
        raise CannotDo(
            "this model was not trained with span corruption and cannot be evaluated on running text; give pairs of a "
            "source and its target, as .tsv or .jsonl"
        )
    if texts is None:
        documents = list(read_documents(sources, replace(data, pairs=pairs), notes))
    else:
        documents = [Document(str(number), text) for number, text in enumerate(texts)]
    tracked = LosslessTracker(tokenizer, documents)
    dataset = encode_documents(tokenizer, tracked)
    if len(dataset) < 10:
        raise BadInput(f"{len(dataset):,} tokens are too few to predict one of them from the others; give more text")
    name = resolve_objective("auto", model.config.architecture, pairs)
    objective, _ = objective_spec(name).make(tokenizer, TrainingSettings()).configure(model.config)
    context = model.config.context or int(np.diff(np.asarray(dataset.starts)).max())
    started = time.perf_counter()
    with without_gradients(model):
        validation = objective.validate(model, dataset, context, limit)
    count = dataset.documents // 2 if pairs else dataset.documents
    return Evaluation(
        score=validation.score,
        documents=count,
        windows="whole",
        stride=None,
        context=None,
        unknown=0,
        lossless=tracked.lossless,
        seconds=time.perf_counter() - started,
    )


def evaluate_causal(
    model: LanguageModel | NGramTables,
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    *,
    windows: WindowMode,
    stride: int | None,
    batch_size: int,
    limit: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> Evaluation:
    """How well a causal model predicts documents, window by window. Raises BadInput for text without a target."""
    length, step = window_length_and_stride(model, None, windows, stride)
    tracked = LosslessTracker(tokenizer, documents)
    dataset = encode_documents(tokenizer, tracked)
    start_token_id = bos_or_eos_token_id(tokenizer)
    if not dataset.text_bytes or not has_targets(dataset, start_token_id):
        raise BadInput("the text is too short: it has no token to predict; give more text")
    started = time.perf_counter()
    score = score_text(
        model,
        dataset,
        on_progress=on_progress,
        limit=limit,
        windows=windows,
        stride=stride,
        batch_size=batch_size,
        start_token_id=start_token_id,
    )
    unknown = 0 if tokenizer.unk_token_id is None else int(np.count_nonzero(dataset.ids == tokenizer.unk_token_id))
    if not tracked.lossless:
        score = score.without_bytes(lossy_tokenizer_reason(unknown))
    return Evaluation(
        score=score,
        documents=dataset.documents,
        windows="whole" if length is None else windows,
        stride=None if length is None else step,
        context=length,
        unknown=unknown,
        lossless=tracked.lossless,
        seconds=time.perf_counter() - started,
    )


def score_text(
    model: LanguageModel | NGramTables,
    dataset: TokenDataset,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    limit: int | None = None,
    **options: Any,
) -> Score:
    """Sums of nats, tokens and bytes of a dataset; `options` are those of `evaluation.windows.iter_scores`."""
    total = len(dataset) if limit is None else min(limit, len(dataset))
    score = Score()
    with without_gradients(model):
        for part in iter_scores(model, dataset, limit=limit, **options):
            score += part
            if on_progress is not None:
                on_progress(min(score.tokens, total), total)
    return score


class LosslessTracker:
    """Iterates over documents and records in `lossless` whether the tokenizer reproduces all of them exactly."""

    def __init__(self, tokenizer: Tokenizer, documents: Iterable[Document]) -> None:
        self.tokenizer = tokenizer
        self.documents = documents
        self.lossless = True

    def __iter__(self) -> Iterator[Document]:
        for document in self.documents:
            self.lossless = self.lossless and self.tokenizer.is_lossless(document.text)
            yield document


def lossy_tokenizer_reason(unknown: int) -> str:
    """Why a text has no bits per byte, for a text with this number of out-of-vocabulary tokens."""
    if unknown:
        return (
            f"{unknown:,} tokens of this text are out of vocabulary, and the cost of their bytes is unknown; use nats "
            "per token for this model, and bits per byte for models with a lossless tokenizer"
        )
    return (
        "the tokenizer does not reproduce this text exactly (case or white space is lost), so bits per byte would "
        "count bytes that were never predicted; use nats per token"
    )
