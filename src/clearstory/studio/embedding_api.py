"""Embedding API: embedding vectors of tokens, nearest neighbours, and the word projection over checkpoints.

final model of a run ─► plane: words, links, two axes ─┐
any checkpoint ─────► its word vectors ────────────────┴─► projection
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from clearstory.errors import BadInput
from clearstory.formats.folders import OpenedModel
from clearstory.lens.hooks.passage import encode_segments, number_duplicates
from clearstory.lens.probes.embeddings import (
    EmbeddingMatrix,
    input_embeddings,
    similarity_caption,
    unit_word_vectors,
    word_neighbours,
)
from clearstory.lens.probes.projection import ProjectionPlane, fit_plane, project_on
from clearstory.lens.rendering.render import render
from clearstory.models.base import LanguageModel
from clearstory.models.prompts import PromptOptions
from clearstory.recipes.inference.loading import load_model_and_tokenizer
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class CheckpointProjectionRequest:
    """The projection of words at one checkpoint, on the axes of the run's final model.

    Args:
        model: the checkpoint's path in the studio's folder.
        final_model: the model that defines words, links and axes: the run's final one.
        text: the words.
        format: "json" for the view as data, or the format of a file.
        top: number of nearest neighbours of each word.
        centre: subtract the mean of all word vectors.
        remove_components: number of principal components to remove.
        max_token_id: only tokens with ids below this are candidates.
        matrix: input or output embeddings.
    """

    model: str
    final_model: str
    text: str = ""
    format: Literal["json", "svg", "csv", "html"] = "json"
    top: int = 4
    centre: bool = True
    remove_components: int = 0
    max_token_id: int | None = None
    matrix: EmbeddingMatrix = "input"


@dataclass(frozen=True)
class ProjectionFrame:
    """A projection plane, and the extent of its words in the final model: left, right, low, high."""

    plane: ProjectionPlane
    extent: tuple[float, float, float, float]


def projection_frame(opened: OpenedModel, request: CheckpointProjectionRequest) -> ProjectionFrame:
    """The plane and extent of the final model, which stay fixed over all checkpoints."""
    model, tokenizer = load_model_and_tokenizer(opened)
    plane = fit_plane(
        model,
        tokenizer,
        request.text,
        top=request.top,
        centre=request.centre,
        remove_components=request.remove_components,
        max_token_id=request.max_token_id,
        matrix=request.matrix,
    )
    how: Any = {"centre": request.centre, "remove_components": request.remove_components, "matrix": request.matrix}
    coordinates, _ = plane.coordinates(unit_word_vectors(model, tokenizer, **how))
    (left, low), (right, high) = coordinates.amin(0).tolist(), coordinates.amax(0).tolist()
    return ProjectionFrame(plane, (left, right, low, high))


def checkpoint_projection(opened: OpenedModel, frame: ProjectionFrame, request: CheckpointProjectionRequest) -> Any:
    """The projection at a checkpoint as plain data with the frame's `extent`, or as the text of a file."""
    model, tokenizer = load_model_and_tokenizer(opened)
    how: Any = {"centre": request.centre, "remove_components": request.remove_components, "matrix": request.matrix}
    view = project_on(model, tokenizer, frame.plane, **how)
    if request.format != "json":
        return render(view, request.format)
    return {**view.to_json(), "extent": list(frame.extent)}


def embedding_rows(
    model: LanguageModel, tokenizer: Tokenizer, text: str, *, prompt: PromptOptions = PromptOptions()
) -> dict[str, Any]:
    """The input embeddings of the tokens that the model reads, (T, W)."""
    if not text:
        raise BadInput("the text is empty; give at least one word")
    ids = list(encode_segments(model, tokenizer, text, prompt)[0].ids)
    values = input_embeddings(model, ids)
    labels = number_duplicates([tokenizer.display_token(id) for id in ids])
    lengths = values.norm(dim=-1)
    longest = int(lengths.argmax())
    return {
        "values": values,
        "labels": list(labels),
        "caption": f"{len(ids):,} tokens, {values.shape[1]:,} dimensions, values from {float(values.min()):.2g} to "
        f"{float(values.max()):.2g}; ‘{labels[longest]}’ has the largest norm, {float(lengths[longest]):.2f} "
        f"(median {float(lengths.median()):.2f}).",
    }


def nearest_embeddings(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    top: int = 12,
    centre: bool = True,
    remove_components: int = 0,
    max_token_id: int | None = None,
    matrix: EmbeddingMatrix = "input",
) -> dict[str, Any]:
    """The unit vectors of a word and of its nearest tokens, (1 + top, W), and their cosines."""
    id, neighbours, vectors = word_neighbours(
        model,
        tokenizer,
        text,
        top=top,
        centre=centre,
        remove_components=remove_components,
        max_token_id=max_token_id,
        matrix=matrix,
    )
    ids = [id, *(each.id for each in neighbours)]
    return {
        "values": vectors[ids],
        "labels": [tokenizer.display_token(id) for id in ids],
        "words": [tokenizer.decode([id]) for id in ids],
        "ids": ids,
        "cosines": [1.0, *(each.cosine for each in neighbours)],
        "caption": similarity_caption(model, tokenizer, vectors, centre, remove_components, matrix),
    }
