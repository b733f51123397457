"""POST /v1/embeddings: one vector per text."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from starlette.responses import Response

from clearstory.server.errors import RequestError
from clearstory.server.fields import request_field
from clearstory.server.streaming import json_list_response, single_result
from clearstory.server.text_requests import check_ids, naming
from clearstory.serving.requests import VectorRequest

if TYPE_CHECKING:
    from clearstory.server.context import RequestContext
    from clearstory.serving.served_model import ServedModel

MAX_INPUTS = 2048
"""Maximum number of texts of a request, as in OpenAI's API."""

UNIT = 1e-3
"""Tolerance within which a vector counts as one of length 1."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class EmbeddingRequest:
    """Texts to embed."""

    model: str = request_field("Name of the model.", max_length=4096)
    input: str | tuple[str, ...] | tuple[int, ...] | tuple[tuple[int, ...], ...] = request_field(
        "One text or several, as texts or as token ids; no special tokens are added to token ids.",
        min_items=1,
    )
    encoding_format: Literal["float", "base64"] = request_field(
        "Format of a vector; base64: its 32-bit little-endian floats, encoded as base64.", "float"
    )
    dimensions: int | None = request_field(
        "Keep only this many first components of each vector; vectors of length 1 are normalized again.",
        None,
        minimum=1,
    )
    normalize: bool = request_field("Normalize each vector to length 1.", False)
    truncate: Literal["left", "right"] | None = request_field(
        "Side at which texts longer than the model's context are truncated; null: such texts are an error.", None
    )
    prompt_name: str | None = request_field(
        "Name of a prompt of the model folder to put in front of each text.", None, max_length=100
    )
    user: str | None = request_field("Identifier of the end user; has no effect.", None, max_length=1000)

    def __post_init__(self) -> None:
        if len(self.texts) > MAX_INPUTS:
            raise RequestError(
                f"input has {len(self.texts):,} texts; it must have at most {MAX_INPUTS:,}",
                param="input",
                code="array_above_max_length",
            )
        empty = next((at for at, text in enumerate(self.texts) if not text), None)
        if empty is not None:
            name = self.name_of(empty)
            raise RequestError(f"{name} is empty; send at least one word", param=name, code="empty_string")

    def name_of(self, index: int) -> str:
        """Name of the field that contains a text."""
        return f"input[{index}]" if len(self.texts) > 1 else "input"

    @property
    def texts(self) -> tuple[str | tuple[int, ...], ...]:
        """The texts one by one."""
        if isinstance(self.input, str):
            return (self.input,)
        if isinstance(self.input[0], int):
            return (self.input,)  # the first item decides what all are
        return self.input  # so here, too


async def embeddings(context: RequestContext, fields: EmbeddingRequest) -> Response:
    """The vector of each text."""
    engine = context.engine(fields.model)
    served = engine.served
    with naming("model"):
        served.require("vectors")
    request = await asyncio.to_thread(vector_request, served, fields)
    n_tokens = sum(map(len, request.rows))
    context.record.count_prompt(n_tokens)
    found = await single_result(lambda deliver: engine.submit_vectors(request, deliver), engine.cancel)
    vectors = shortened(found, fields.dimensions)
    data = (
        {"object": "embedding", "index": index, "embedding": as_json(vector, fields.encoding_format)}
        for index, vector in enumerate(vectors)
    )
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return await json_list_response({"object": "list", "model": fields.model, "usage": usage}, "data", data)


def vector_request(served: ServedModel, fields: EmbeddingRequest) -> VectorRequest:
    """The encoded texts."""
    texts = [text for text in fields.texts if isinstance(text, str)]
    rows = [row for row in fields.texts if not isinstance(row, str)]
    with naming("prompt_name"):
        inputs = served.vector_inputs(fields.prompt_name, fields.truncate)
    if texts:
        names = [fields.name_of(index) for index in range(len(texts))]
        with naming("input"):
            return VectorRequest(rows=tuple(inputs(texts, names)), skipped=inputs.skipped, normalize=fields.normalize)
    for index, row in enumerate(rows):
        check_ids(served.opened.model, row, fields.name_of(index))
        if inputs.longest is not None and len(row) > inputs.longest:
            raise RequestError(
                f"{fields.name_of(index)} has {len(row):,} tokens; the model reads at most {inputs.longest:,}",
                param=fields.name_of(index),
                code="context_length_exceeded",
            )
    return VectorRequest(rows=tuple(rows), normalize=fields.normalize)


def shortened(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first `dimensions` components of vectors (N, D), normalized to length 1 if the full vectors are."""
    if dimensions is None:
        return vectors
    if dimensions > vectors.shape[1]:
        raise RequestError(
            f"dimensions is {dimensions:,}; it must be at most {vectors.shape[1]:,} for this model",
            param="dimensions",
            code="integer_above_max_value",
        )
    kept = vectors[:, :dimensions]
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    unit = np.abs(np.linalg.norm(vectors, axis=1, keepdims=True) - 1) < UNIT
    scaled: Vectors = np.where(unit & (lengths > 0), kept / np.maximum(lengths, 1e-30), kept).astype(np.float32)
    return scaled


def as_json(vector: Vectors, encoding: str) -> Any:
    """A vector as a list of numbers, or as base64."""
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()
