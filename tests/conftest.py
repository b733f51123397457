"""What all tests share: one thread, shapes checked on demand, and the folder of test data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two threads beside other work are slower than one; set before torch is imported, and for subprocesses too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Results must not depend on where they are shown.
os.environ["COLUMNS"] = "80"
os.environ.pop("FORCE_COLOR", None)

# `make test-shapes` checks every shape and type in a signature; it triples the time of most tests.
if os.environ.get("CLEARSTORY_CHECK_SHAPES") == "1":
    from jaxtyping import install_import_hook

    install_import_hook("clearstory", "checking.checked")

DATA = Path(os.environ.get("CLEARSTORY_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public test corpora, named by CLEARSTORY_DATA."""
    if not DATA.is_dir():
        pytest.skip(f"no test corpora in {DATA}; set CLEARSTORY_DATA to the folder that has tinyshakespeare and others")
    return DATA
