"""Quickstart: from nothing to a model that writes, on a text that is at hand, and a first look inside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clearstory.formats.folders import OpenedModel, open_model
from clearstory.lens.probes.attention import attention
from clearstory.lens.rendering.render import save_view
from clearstory.lens.probes.x_neighbours import neighbours
from clearstory.lens.views import Table
from clearstory.models.build import build
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.prompts import bos_or_eos_token_id
from clearstory.evaluation.windows import score_dataset
from clearstory.recipes.training.events import TrainingEvent, TrainingResult
from clearstory.recipes.training.samples import sample_text
from clearstory.recipes.settings.training import QuickstartRecipe, build_train_recipe
from clearstory.recipes.training.loop import train_events
from clearstory.text.corpus import Corpus
from clearstory.text.tokenizers import Tokenizer

CORPUS = "corpus:kjv"
PROMPTS = {"kjv": "And it came to pass", "python-docs": "Return a list of"}
WORDS = {"kjv": ("Moses", "day", "went", "sons"), "python-docs": ("list", "file", "error")}


@dataclass(frozen=True)
class Part:
    """A part of what quickstart shows: its title and its text."""

    title: str
    text: str


def quickstart_events(recipe: QuickstartRecipe) -> Iterator[TrainingEvent]:
    """Train `clear` on the built-in corpus for the minutes that are given."""
    out = recipe.out or Path("runs/quickstart")
    given = {
        "text": (CORPUS,),
        "model": "clear",
        "minutes": recipe.minutes,
        "out": out,
        # A quickstart is repeated without thinking about folders; a folder named by hand is asked about.
        "overwrite": recipe.out is None,
        "training": {"seed": recipe.seed},
    }
    yield from train_events(build_train_recipe(given))


def tour(finished: TrainingResult, *, seed: int) -> list[Part]:
    """What the model can do and what it has learnt: its curve, a passage, a word's neighbours, a head's attention."""
    opened = open_model(finished.folder)
    corpus = opened.card.trained_on[0][0]
    prompt = PROMPTS.get(corpus, PROMPTS["kjv"])
    assert opened.tokenizer is not None
    passage = sample_text(opened.model, opened.tokenizer, seed=seed, tokens=160, prompt=prompt)
    parts = [
        Part("Bits per byte of the held-out text", beside_counting(finished, opened.tokenizer)),
        Part("A passage it wrote", passage),
    ]
    if (words := nearest_words(opened, WORDS.get(corpus, ()))) is not None:
        parts.append(Part("Words whose vectors came to point the same way", words))
    line = " ".join(prompt.split()[:5])
    grid = save_view(attention(opened.model, opened.tokenizer, line), finished.run_folder / "attention.html")
    parts.append(Part("Files", "\n".join(f"{what:16} {path}" for what, path in (
        ("learning curve", finished.curve), ("attention grid", grid), ("model", finished.folder)))))  # fmt: skip
    parts.append(Part("What to try next", advice(finished, prompt)))
    return parts


def beside_counting(finished: TrainingResult, tokenizer: Tokenizer) -> str:
    """The model's bits per byte, and those of an n-gram of order 5 that counted the same tokens of the same split."""
    began = time.process_time()
    rows = Corpus.open((CORPUS,)).encode(tokenizer)
    begin = bos_or_eos_token_id(tokenizer)
    model = build(NGramConfig(vocab=tokenizer.vocab, order=5, bos_token_id=begin))
    for _ in model.fit(rows["train"]):
        pass
    bits = score_dataset(model, rows["validation"], start_token_id=begin).bits_per_byte
    spent = time.process_time() - began
    return (
        f"the model                {finished.bits_per_byte:.3f}   {finished.cpu_seconds:.0f} seconds of the processor\n"
        f"counting, 5 tokens deep  {bits:.3f}   {spent:.0f}"
    )


def nearest_words(opened: OpenedModel, words: tuple[str, ...]) -> str | None:
    """A line for each word that is one token: its nearest neighbours."""
    assert opened.tokenizer is not None
    lines = []
    for word in words:
        if len(opened.tokenizer.encode(f" {word}")) == 1:
            view: Table = neighbours(opened.model, opened.tokenizer, word, top=6)
            lines.append(
                f"{word:8} " + "  ".join(f"{str(token).strip('␣')} {cosine:.3f}" for token, cosine, _ in view.rows)
            )
    return "\n".join(lines) if lines else None


def advice(finished: TrainingResult, prompt: str) -> str:
    """Commands to go on with, as they would be typed."""
    return "\n".join(
        (
            f'clearstory generate {finished.folder} "{prompt}" --temperature 0.8 --max-tokens 200',
            f'clearstory inspect {finished.folder} "{prompt}" --view next-token',
            f"clearstory evaluate {finished.folder} README.md",
            "clearstory train ~/notes --minutes 10          your own folder of text",
            "clearstory studio                              all of this on a page, and every number in between",
        )
    )
