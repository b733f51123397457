"""Views in a file format: `render(view, "svg")`, or written to a file whose name says the format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from clearstory.durable import write_text
from clearstory.errors import UnknownName, nearest
from clearstory.lens.rendering.csv_table import render_csv
from clearstory.lens.rendering.html_page import render_html
from clearstory.lens.rendering.svg import render_svg
from clearstory.lens.views.base import View


def render_json(view: View) -> str:
    """A view as JSON, with all of its numbers."""
    return json.dumps(view.to_json(), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


FORMATS: dict[str, Callable[[View], str]] = {
    "html": render_html,
    "svg": render_svg,
    "csv": render_csv,
    "json": render_json,
}
"""From the name of a file format to the function that renders a view in it."""


def render(view: View, format: str) -> str:
    """A view as text in one of FORMATS. Raises UnknownName for any other format."""
    if format not in FORMATS:
        raise UnknownName(f"there is no format '{format}' of views; {nearest(format, FORMATS)}")
    return FORMATS[format](view)


def format_of(file: Path | str) -> str:
    """The format that a file name says. Raises UnknownName for a suffix that is no format."""
    suffix = Path(file).suffix.lower()
    if suffix.removeprefix(".") not in FORMATS:
        suffixes = [f".{name}" for name in FORMATS]
        raise UnknownName(f"a view cannot be written to '{Path(file).name}'; {nearest(suffix, suffixes)}")
    return suffix.removeprefix(".")


def save_view(view: View, file: Path | str) -> Path:
    """Write a view to a .html, .svg, .csv or .json file. Raises UnknownName for any other suffix."""
    file = Path(file).expanduser()
    write_text(file, render(view, format_of(file)))
    return file
