"""Embedding: the vectors of words as a page shows them: strips of numbers, and a map whose axes stand still as a model
learns.

 the run's end ─► plane: words, links, two axes ─┐
 any checkpoint ─► its word vectors ─────────────┴─► map
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from clearstory.errors import BadInput
from clearstory.formats.folders import OpenedModel
from clearstory.lens.rendering.render import WRITERS
from clearstory.lens.probes.x_neighbours import similarity_caption, word_neighbours
from clearstory.lens.hooks.passage import number_duplicates
from clearstory.lens.probes.x_vectors import input_embeddings, unit_word_vectors
from clearstory.lens.probes.projection import ProjectionPlane, fit_plane, project_on
from clearstory.recipes.inference.loading import load_model_and_tokenizer


@dataclass(frozen=True, kw_only=True)
class CheckpointProjectionRequest:
    """The words of a text at one checkpoint, on the axes of another model of the run.

    Args:
        model: the checkpoint's path in the studio's folder.
        last: the model that gives words, links and axes: the run's own.
        text: the words.
        format: json as data, or the file that the library writes.
        top: how many of the nearest of each word.
        centre: whether the mean of all word vectors is taken away.
        remove: how many main directions besides.
        within: only tokens with ids below this are looked for.
    """

    model: str
    last: str
    text: str = ""
    format: Literal["json", "svg", "csv", "html"] = "json"
    top: int = 4
    centre: bool = True
    remove: int = 0
    within: int | None = None


@dataclass(frozen=True)
class ProjectionFrame:
    """A plane, and how far its words reach on it in the model that gave it: left, right, low, high."""

    plane: ProjectionPlane
    extent: tuple[float, float, float, float]


def projection_frame(opened: OpenedModel, request: CheckpointProjectionRequest) -> ProjectionFrame:
    """What stands still."""
    network, tokenizer = load_model_and_tokenizer(opened)
    plane = fit_plane(
        network,
        tokenizer,
        request.text,
        top=request.top,
        centre=request.centre,
        remove=request.remove,
        within=request.within,
    )
    places, _ = plane.places(unit_word_vectors(network, tokenizer, centre=request.centre, remove=request.remove))
    (left, low), (right, high) = places.amin(0).tolist(), places.amax(0).tolist()
    return ProjectionFrame(plane, (left, right, low, high))


def checkpoint_projection(opened: OpenedModel, still: ProjectionFrame, request: CheckpointProjectionRequest) -> Any:
    """Where the words stand at a checkpoint, as plain data with `extent` beside it, or as the text of a file."""
    network, tokenizer = load_model_and_tokenizer(opened)
    seen = project_on(network, tokenizer, still.plane, centre=request.centre, remove=request.remove)
    if request.format != "json":
        return WRITERS[f".{request.format}"](seen)
    return {**seen.to_json(), "extent": list(still.extent)}


def embedding_rows(model: Any, tokenizer: Any, text: str) -> dict[str, Any]:
    """The embedding's rows of a text's tokens, (T, W), all dimensions."""
    ids = tokenizer.encode(text)
    if not ids:
        raise BadInput("the text is empty; give a few words to look at")
    values = input_embeddings(model, ids)
    labels = number_duplicates([tokenizer.display_token(id) for id in ids])
    lengths = values.norm(dim=-1)
    longest = int(lengths.argmax())
    return {
        "values": values,
        "labels": list(labels),
        "caption": f"{len(ids):,} tokens, {values.shape[1]:,} numbers each, from {float(values.min()):.2g} to "
        f"{float(values.max()):.2g}; the longest vector is that of ‘{labels[longest]}’, {float(lengths[longest]):.2f} "
        f"where the median is {float(lengths.median()):.2f}.",
    }


def nearest_embeddings(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    top: int = 12,
    centre: bool = True,
    remove: int = 0,
    within: int | None = None,
) -> dict[str, Any]:
    """A word's vector and those of the tokens nearest to it, (1 + top, W), each of length 1: products are cosines."""
    own, found, vectors = word_neighbours(model, tokenizer, text, top=top, centre=centre, remove=remove, within=within)
    ids = [own, *(each.id for each in found)]
    return {
        "values": vectors[ids],
        "labels": [tokenizer.display_token(id) for id in ids],
        "words": [tokenizer.decode([id]) for id in ids],
        "ids": ids,
        "cosines": [1.0, *(each.cosine for each in found)],
        "caption": similarity_caption(model, tokenizer, vectors, centre, remove),
    }
