"""HTML of results for notebooks: small tables and texts, everything escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> str:
    """A table of rows; floats get four significant digits, None an empty cell.

    >>> html_table([("bits per byte", 1.23456), ("a < b", None)])
    '<table><tr><td>bits per byte</td><td>1.235</td></tr><tr><td>a &lt; b</td><td></td></tr></table>'
    """
    head = f"<tr>{''.join(f'<th>{escape(each)}</th>' for each in header)}</tr>" if header else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(format_cell(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{head}{body}</table>"


def format_cell(value: object) -> str:
    """A value as the text of a table cell."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def html_completion(prompt: str, text: str, *, continues_prompt: bool = True) -> str:
    """A prompt in bold with the generated text after it, line breaks kept.

    >>> html_completion("<Once", " upon")
    '<p style="white-space:pre-wrap"><b>&lt;Once</b> upon</p>'
    """
    separator = "" if continues_prompt else " → "
    return f'<p style="white-space:pre-wrap"><b>{escape(prompt)}</b>{separator}{escape(text)}</p>'
