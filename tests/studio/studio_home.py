"""What the studio's tests share: a folder with a model of each kind and a finished run, and the studio over it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.ngram.config import NGramConfig
from clearstory.studio.app import studio_app
from clearstory.text.corpus import Corpus
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_LSTM, shaken
from trained import all_events, recipe, text_file, words

HOME = "http://127.0.0.1:8642"
TEXT = "the cat sat on"
HOSTILE = "</script><img/onerror=alert(1)/src=x>"
"""A word that would be markup, were it ever read as such."""


def make(root: Path) -> Path:
    """Models of three families, one whose words are hostile, and a run of eight steps."""
    tokenizer = train_tokenizer("characters", [words()])
    for name, config in (("clear", TINY_CLEAR), ("lstm", TINY_LSTM)):
        card = ModelCard(family=config.family, trained_on=(("words", 600),))
        save_model(root / "models" / name, fitted(config, tokenizer.vocab), tokenizer, card)
    hostile = train_tokenizer("words", [f"the {HOSTILE} cat"])
    save_model(root / "models" / "hostile", fitted(TINY_CLEAR, hostile.vocab), hostile, ModelCard())
    corpus = text_file(root, "words.txt")
    counts: Any = build(NGramConfig(vocab=tokenizer.vocab, order=3))
    for _ in counts.fit(Corpus.open((str(corpus),)).encode(tokenizer)["train"]):
        pass
    save_model(root / "models" / "ngram", counts, tokenizer, ModelCard(family="ngram"))
    all_events(recipe(corpus, root / "runs" / "short", **{"training.sample_steps": 4}))
    return root


def fitted(config: Any, vocab: int) -> Any:
    """A shaken model of a tokenizer's size, in single precision as models are saved."""
    return shaken(replace(config, vocab=vocab)).float()


def client(folder: Path, base: str = HOME, **guard: Any) -> TestClient:
    """A studio over a folder, as its own page asks it; faults of the server come as answers."""
    return TestClient(studio_app(folder, **guard), base_url=base, raise_server_exceptions=False)
