"""clearstory embed: vectors of texts, search by similarity, and texts without duplicates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.embedding import EmbedRecipe


def run(recipe: EmbedRecipe, output: Output) -> Mapping[str, Any]:
    """Print each text with its vector, one line of JSON for each; or the search results."""
    options = vars(recipe.embedding)
    if recipe.query:
        return run_search(recipe, options, output)
    if recipe.duplicates is not None:
        return run_deduplication(recipe, options, output)
    from clearstory.recipes.inference.embed import embed
    from clearstory.recipes.inference.embedding_files import check_suffix, write_embeddings

    if recipe.out is not None:
        check_suffix(recipe.out, ".npy")
    embeddings = embed(recipe.model, recipe.text, normalize=recipe.normalize, **options)
    print_note(embeddings.note, output)
    if recipe.out is not None:
        write_embeddings(recipe.out, embeddings)
        count, width = embeddings.vectors.shape
        return {"out": str(recipe.out), "count": count, "width": width, "pooling": embeddings.pooling}
    if not output.json:
        for text, vector in zip(embeddings.texts, embeddings.vectors.tolist(), strict=True):
            output.write(json.dumps({"text": text, "vector": vector}, ensure_ascii=False) + "\n")
    return embeddings.to_json()


def run_search(recipe: EmbedRecipe, options: Mapping[str, Any], output: Output) -> Mapping[str, Any]:
    """Print the texts that are most similar to each query, with their cosines and positions."""
    from clearstory.recipes.inference.embedding_files import check_suffix, write_search_results
    from clearstory.recipes.inference.similarity_search import search

    if recipe.out is not None:
        check_suffix(recipe.out)
    found = search(recipe.model, recipe.text, recipe.query, top=recipe.top, **options)
    print_note(found.note, output)
    if recipe.out is not None:
        write_search_results(recipe.out, found.results)
    elif not output.json:
        for result in found.results:
            title = f"{result.query}\n" if len(found.results) > 1 else ""
            lines = [f"{hit.score:8.4f}  {hit.position:6,}  {hit.text}\n" for hit in result.hits]
            output.write("".join([title, *lines]))
    return found.to_json()


def run_deduplication(recipe: EmbedRecipe, options: Mapping[str, Any], output: Output) -> Mapping[str, Any]:
    """Print the texts that are kept, and how many are not."""
    from clearstory.recipes.inference.embedding_files import check_suffix, write_deduplication
    from clearstory.recipes.inference.similarity_search import deduplicate

    if recipe.out is not None:
        check_suffix(recipe.out, ".txt")
    assert recipe.duplicates is not None, "checked by the caller"
    found = deduplicate(recipe.model, recipe.text, threshold=recipe.duplicates, **options)
    print_note(found.note, output)
    if recipe.out is not None:
        write_deduplication(recipe.out, found)
    elif not output.json:
        output.write("".join(f"{found.texts[position]}\n" for position in found.kept))
    count, kept, groups = len(found.texts), len(found.kept), len(found.groups)
    output.stderr.print(
        f"{kept:,} of {count:,} texts kept; {count - kept:,} are duplicates of an earlier one (cosine "
        f"{recipe.duplicates:g} or more), in {groups:,} group{'s' * (groups != 1)}"
    )
    return found.to_json()


def print_note(note: str | None, output: Output) -> None:
    """Print on standard error how vectors were pooled, where nobody has chosen it."""
    if note:
        output.stderr.print(note)


COMMAND = Command(
    recipe=EmbedRecipe,
    run=run,
    example='clearstory embed runs/bert "A cat sat on the mat." --normalize',
    further_examples=(
        'clearstory embed models/minilm notes.txt --query "how to brew tea" --top 3',
        "clearstory embed models/minilm notes.txt --duplicates 0.9 --out kept.txt",
    ),
)
