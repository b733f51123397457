"""--int8 of embed, classify and tag: near the numbers of fp32, and not the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.head_config import ClassifierConfig
from clearstory.models.transformer.presets import MINILM
from clearstory.text.train_tokenizer import train_tokenizer

TEXTS = ["the cat sat on a mat.", "Dogs bark!", "A bird sings, it sings."]
SMALL = {"context": 24, "width": 32, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 16, "intermediate_size": 64}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of texts and one of words, which no test changes."""
    home = tmp_path_factory.mktemp("int8")
    tokenizer = train_tokenizer("wordpiece:60", TEXTS * 3)
    base = replace(MINILM, pooler=False, vocab=tokenizer.vocab, **SMALL)
    for command, pooling in (("classify", "pooler"), ("tag", None)):
        model: Any = build(ClassifierConfig(backbone=base, labels=("A", "B"), pooling=pooling), seed=3)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(4)
        save_model(home / command, model, tokenizer, ModelCard(name=command))
    return home


def numbers(command: str, answer: Any) -> Any:
    """Vectors or probabilities of a command's answer."""
    if command == "embed":
        return np.array(answer["vectors"])
    if command == "tag":
        return np.array(answer["probabilities"])
    return np.array(
        [sorted((each["label"], each["probability"]) for each in text["labels"]) for text in answer["texts"]]
    )[..., 1].astype(float)


@pytest.mark.parametrize("command", ["embed", "classify", "tag"])
def test_int8_is_near_and_not_the_same(command: str, home: Path, cli: Callable[..., Any]) -> None:
    folder = home / ("tag" if command == "tag" else "classify")
    exact, rounded = (
        numbers(command, json.loads(cli(command, folder, *TEXTS, *flags, "--json").out)) for flags in ([], ["--int8"])
    )
    assert exact.shape == rounded.shape
    difference = np.abs(exact - rounded).max()
    assert 0 < difference < 0.2 * np.abs(exact).max()
