"""The wheel: it holds all that the package reads when it runs."""

from __future__ import annotations

from pathlib import Path

import clearstory


def test_sources_of_the_compiled_kernels_are_in_the_wheel(installed: Path) -> None:
    package = Path(clearstory.__file__).parent
    sources = sorted(each.relative_to(package) for ending in ("*.c", "*.h") for each in package.rglob(ending))
    assert len(sources) >= 4
    for each in sources:
        assert (installed / "clearstory" / each).read_bytes() == (package / each).read_bytes()
