"""Quickstart: train a small model on a built-in text, and show results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clearstory.evaluation.windows import score_dataset
from clearstory.formats.folders import OpenedModel, open_model
from clearstory.lens.probes.attention import attention
from clearstory.lens.probes.embeddings import neighbours
from clearstory.lens.rendering.render import save_view
from clearstory.lens.views import Table
from clearstory.models.build import build
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.prompts import bos_or_eos_token_id
from clearstory.recipes.settings.training import QuickstartRecipe, build_train_recipe
from clearstory.recipes.training.events import TrainingEvent, TrainingResult
from clearstory.recipes.training.loop import train_events
from clearstory.recipes.training.samples import sample_text
from clearstory.text.corpus import Corpus
from clearstory.text.tokenizers import Tokenizer

CORPUS = "corpus:kjv"
PROMPTS = {"kjv": "And it came to pass", "python-docs": "Return a list of"}
WORDS = {"kjv": ("Moses", "day", "went", "sons"), "python-docs": ("list", "file", "error")}


@dataclass(frozen=True)
class TourSection:
    """One section of the output after training."""

    title: str
    text: str


def quickstart_events(recipe: QuickstartRecipe) -> Iterator[TrainingEvent]:
    """Events of training `clear` on the built-in corpus for the given minutes."""
    out = recipe.out or Path("runs/quickstart")
    settings = {
        "text": (CORPUS,),
        "model": "clear",
        "minutes": recipe.minutes,
        "out": out,
        # The default folder is replaced by the next quickstart; an explicit one is not.
        "overwrite": recipe.out is None,
        "training": {"seed": recipe.seed},
    }
    yield from train_events(build_train_recipe(settings))


def build_tour(result: TrainingResult, *, seed: int) -> list[TourSection]:
    """Results of the trained model: bits per byte, generated text, neighbours of words, files and next commands."""
    opened = open_model(result.folder)
    corpus = opened.card.trained_on[0][0]
    prompt = PROMPTS.get(corpus, PROMPTS["kjv"])
    assert opened.tokenizer is not None
    passage = sample_text(opened.model, opened.tokenizer, seed=seed, tokens=160, prompt=prompt)
    sections = [
        TourSection("Bits per byte on the validation split", compare_with_ngram(result, opened.tokenizer)),
        TourSection("Generated text", passage),
    ]
    if (words := nearest_words(opened, WORDS.get(corpus, ()))) is not None:
        sections.append(TourSection("Nearest neighbours of words, by cosine similarity of embeddings", words))
    line = " ".join(prompt.split()[:5])
    grid = save_view(attention(opened.model, opened.tokenizer, line), result.run_folder / "attention.html")
    sections.append(TourSection("Files", "\n".join(f"{what:16} {path}" for what, path in (
        ("learning curve", result.curve), ("attention grid", grid), ("model", result.folder)))))  # fmt: skip
    sections.append(TourSection("Next commands", next_commands(result, prompt)))
    return sections


def compare_with_ngram(result: TrainingResult, tokenizer: Tokenizer) -> str:
    """A table of the model's bits per byte and those of a 5-gram model of the same tokens."""
    started = time.process_time()
    datasets = Corpus.open((CORPUS,)).encode(tokenizer)
    start_token_id = bos_or_eos_token_id(tokenizer)
    model = build(NGramConfig(vocab=tokenizer.vocab, order=5, bos_token_id=start_token_id))
    for _ in model.fit(datasets["train"]):
        pass
    bits = score_dataset(model, datasets["validation"], start_token_id=start_token_id).bits_per_byte
    cpu_seconds = time.process_time() - started
    return (
        f"this model    {result.bits_per_byte:.3f}   {result.cpu_seconds:.0f} CPU seconds\n"
        f"5-gram model  {bits:.3f}   {cpu_seconds:.0f}"
    )


def nearest_words(opened: OpenedModel, words: tuple[str, ...]) -> str | None:
    """One line per word that is a single token, with its nearest neighbours; None if no word is."""
    assert opened.tokenizer is not None
    lines = []
    for word in words:
        if len(opened.tokenizer.encode(f" {word}")) == 1:
            view: Table = neighbours(opened.model, opened.tokenizer, word, top=6)
            lines.append(
                f"{word:8} " + "  ".join(f"{str(token).strip('␣')} {cosine:.3f}" for token, cosine, _ in view.rows)
            )
    return "\n".join(lines) if lines else None


def next_commands(result: TrainingResult, prompt: str) -> str:
    """Commands to continue with, one per line."""
    return "\n".join(
        (
            f'clearstory generate {result.folder} "{prompt}" --temperature 0.8 --max-tokens 200',
            f'clearstory inspect {result.folder} "{prompt}" --view next-token',
            f"clearstory evaluate {result.folder} README.md",
            "clearstory train ~/notes --minutes 10          train on a folder of text",
            "clearstory studio                              explore models in the browser",
        )
    )
