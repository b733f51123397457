"""Numbers and texts formatted for axes, table cells, titles and captions."""

from __future__ import annotations

import re


def format_number(value: float) -> str:
    """A number in a few characters, as on an axis.

    >>> [format_number(value) for value in (1500, 0.25, 2000000, 0, 1e-5, 12.0)]
    ['1,500', '0.25', '2M', '0', '1e-05', '12']
    """
    if value == 0:
        return "0"
    size = abs(value)
    for least, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= least:
            return f"{value / (1e3 if letter == 'k' else least):,.3g}{letter}" if size < 1e13 else f"{value:.2g}"
    if size < 1e-3:
        return f"{value:.1e}".replace(".0e", "e")
    return f"{value:,.4g}" if size < 1000 else f"{value:,.0f}"


def format_cell(cell: object) -> str:
    """A table cell as text: floats to four significant digits, None as a dash.

    >>> format_cell(0.123456), format_cell(12345), format_cell(None)
    ('0.1235', '12,345', '–')
    """
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return re.sub(r"e([+-])0*(\d)", r"e\1\2", f"{cell:.3g}") if 0 < abs(cell) < 1e-4 else f"{cell:,.4g}"
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return str(cell)


def format_probability(probability: float) -> str:
    """A probability in percent, with two significant digits below 10%.

    >>> format_probability(0.4567), format_probability(0.0004)
    ('46%', '0.04%')
    """
    return f"{probability:.0%}" if probability >= 0.1 else f"{100 * probability:.2g}%"


def whole_percent(probability: float) -> str:
    """A probability in whole percent, without the sign.

    >>> whole_percent(0.123), whole_percent(0.0012)
    ('12', '<1')
    """
    return "<1" if probability < 0.005 else f"{100 * probability:.0f}"


def text_ending(text: str, length: int = 40) -> str:
    """The end of a text, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else "…" + text[-length + 1 :]
