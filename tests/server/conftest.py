"""A tiny chat model in a folder and its engine, for all tests of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import MODEL, client_of, make_model
from starlette.testclient import TestClient

from clearstory.serving.engine_thread import EngineLimits, EngineThread
from clearstory.serving.served_model import ServedModel


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model."""
    return make_model(tmp_path_factory.mktemp("served") / MODEL)


@pytest.fixture(scope="session")
def served_model(model_folder: Path) -> ServedModel:
    """The model, opened."""
    return ServedModel.open(model_folder, precision="fp32")


@pytest.fixture(scope="session")
def engines(served_model: ServedModel) -> Iterator[dict[str, EngineThread]]:
    """The thread of the model, by its name."""
    engine = EngineThread(served_model, EngineLimits(threads=1, max_running=16, max_waiting=64))
    yield {MODEL: engine}
    engine.stop()


@pytest.fixture
def client(engines: dict[str, EngineThread]) -> Iterator[TestClient]:
    """A client of the server."""
    with client_of(engines) as opened:
        yield opened
