"""Stopping: work that nobody waits for any more ends between two layers, and leaves the model as it was."""

from __future__ import annotations

import asyncio
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.base import TokenBatch
from clearstory.studio.http_json import RequestCancelled
from clearstory.studio.model_cache import ModelCache, cancellable
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS

ROWS = TokenBatch.from_sequences([[1, 2, 3]])


@pytest.mark.parametrize("name", ["gpt2", "lstm"])
def test_the_next_layer_is_not_begun(name: str) -> None:
    model: Any = MODELS[name]()
    before, _ = model.forward(ROWS)
    dropped = Event()
    with cancellable(model, dropped):
        assert torch.equal(model.forward(ROWS)[0], before)
        dropped.set()
        with pytest.raises(RequestCancelled):
            model.forward(ROWS)
    assert torch.equal(model.forward(ROWS)[0], before)


def test_who_leaves_in_the_middle_frees_the_model(tmp_path: Path) -> None:
    save_model(
        tmp_path / "model", MODELS["gpt2"]().float(), train_tokenizer("characters", ["abcdefghijklmnop"]), ModelCard()
    )
    begun = Event()

    def endless(opened: Any) -> None:
        while True:
            opened.model.forward(ROWS)
            begun.set()

    async def gone() -> bool:
        return begun.is_set()

    async def asked() -> int:
        cache = ModelCache(tmp_path)
        with pytest.raises(RequestCancelled):
            await cache.run("model", endless, gone)
        return await cache.run("model", lambda opened: int(opened.model.forward(ROWS)[0].shape[1]), None)

    assert asyncio.run(asyncio.wait_for(asked(), 60)) == 3
