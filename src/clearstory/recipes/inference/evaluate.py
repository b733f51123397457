"""Evaluate: how well a model foresees a text, in bits per byte."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clearstory.errors import BadInput
from clearstory.metrics import Score
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.int8 import quantize_int8 as in_int8
from clearstory.models.base import inference_mode, reads_source
from clearstory.models.prompts import bos_or_eos_token_id
from clearstory.evaluation.windows import WindowMode, has_targets, iter_scores, window_length_and_stride
from clearstory.recipes.inference.evaluate_encoder import EncoderEvaluation, evaluate_encoder
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer, require_mlm_head
from clearstory.recipes.inference.evaluate_seq2seq import evaluate_seq2seq
from clearstory.text.document import Document
from clearstory.text.documents import read_documents
from clearstory.text.token_dataset import TokenDataset, encode_documents
from clearstory.text.settings import DataSettings
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a model foresaw a text, and how it was asked.

    Args:
        score: the sums; its `bytes` is None where bits per byte would mean nothing, and its `reason` says why.
        documents: how many; none saw another.
        windows: "strided" (overlapping), "blocks" (side by side), or "whole" for a model that never forgets.
        stride: tokens from one window's beginning to the next's; None for "whole".
        context: the window's length; None for "whole".
        unknown: tokens of the text that the tokenizer had no word for.
        lossless: whether the tokens spell the text exactly.
        seconds: scoring took.
    """

    score: Score
    documents: int
    windows: Literal["strided", "blocks", "whole"]
    stride: int | None
    context: int | None
    unknown: int
    lossless: bool
    seconds: float

    @property
    def bits_per_byte(self) -> float | None:
        """The yardstick; None where the tokenizer loses some of the text."""
        return self.score.bits_per_byte

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "bits_per_byte": self.score.bits_per_byte,
            "nats_per_token": self.score.nats_per_token,
            "perplexity": self.score.perplexity,
            "bytes": self.score.bytes,
            "tokens": self.score.tokens,
            "documents": self.documents,
            "windows": self.windows,
            "stride": self.stride,
            "context": self.context,
            "unknown": self.unknown,
            "lossless": self.is_lossless,
            "reason": self.score.reason,
            "seconds": self.seconds,
        }


def evaluate(
    model: str | Path | ModelWithTokenizer,
    sources: str | Path | Sequence[str | Path] = (),
    *,
    texts: Sequence[str] | None = None,
    windows: WindowMode = "strided",
    stride: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    data: DataSettings | None = None,
    int8: bool = False,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation | EncoderEvaluation:
    """How well a model foresees the text of `sources` (files, folders, globs, corpora), or of `texts` given as such.

    All of it is read; a document longer than the context, window by window. Each document begins after the token that
    texts begin after, so that its first token is foreseen too; with a tokenizer that has none, that token is left out
    of every sum. Where there are several documents, foreseeing each one's end is part of the task. `limit` stops after
    about so many tokens. `on_progress` is told tokens done and tokens in all.

    Raises BadInput for text that cannot be read, BadSetting for windows that cannot be.
    """
    network, tokenizer = load_model_and_tokenizer(model, device)
    if reads_source(network):
        given = [sources] if isinstance(sources, str | Path) else sources
        score, count, lossless, seconds = evaluate_seq2seq(network, tokenizer, given, texts, data, limit)
        return Evaluation(
            score=score, documents=count, windows="whole", stride=None, context=None, unknown=0,
            lossless=lossless, seconds=seconds,
        )  # fmt: skip
    if texts is None:
        documents: Iterable[Document] = read_documents([sources] if isinstance(sources, str | Path) else sources, data)
    else:
        documents = (Document(str(number), text) for number, text in enumerate(texts))
    if isinstance(network, Encoder):
        require_mlm_head(network)
        return evaluate_encoder(network, tokenizer, documents, limit=limit, on_progress=on_progress)
    length, step = window_length_and_stride(network, None, windows, stride)
    watch = Watch(tokenizer, documents)
    rows = encode_documents(tokenizer, watch)
    begin = bos_or_eos_token_id(tokenizer)
    if not has_targets(rows, begin):
        raise BadInput("the text is too short: there is no token to foresee; give more of it")
    if int8:
        network = in_int8(network)
    started = time.perf_counter()
    score = Score()
    whole = len(rows) if limit is None else min(limit, len(rows))
    with inference_mode(network):
        parts = iter_scores(
            network, rows, windows=windows, stride=stride, start_token_id=begin, batch_size=batch_size, limit=limit
        )
        for part in parts:
            score += part
            if on_progress is not None:
                on_progress(min(score.tokens, whole), whole)
    unknown = 0 if tokenizer.unk_token_id is None else int(np.count_nonzero(rows.ids == tokenizer.unk_token_id))
    if not watch.lossless:
        score = score.without_bytes(reason(unknown))
    return Evaluation(
        score=score,
        documents=rows.documents,
        windows="whole" if length is None else windows,
        stride=None if length is None else step,
        context=length,
        unknown=unknown,
        lossless=watch.lossless,
        seconds=time.perf_counter() - started,
    )


class Watch:
    """Documents as they pass by, and whether all of them could be spelt exactly."""

    def __init__(self, tokenizer: Tokenizer, documents: Iterable[Document]) -> None:
        self.tokenizer = tokenizer
        self.documents = documents
        self.is_lossless = True

    def __iter__(self) -> Iterator[Document]:
        for document in self.documents:
            self.is_lossless = self.is_lossless and self.tokenizer.is_lossless(document.text)
            yield document


def reason(unknown: int) -> str:
    """Why there are no bits per byte."""
    if unknown:
        return (
            f"the tokenizer has no word for {unknown:,} tokens of this text, so the bytes they stand for are unknown; "
            "compare models whose tokenizers spell everything in bits per byte, this one in nats per token"
        )
    return (
        "the tokenizer does not give this text back exactly (case or white space is lost), so bits per byte would "
        "count what was never foreseen; compare it in nats per token"
    )
