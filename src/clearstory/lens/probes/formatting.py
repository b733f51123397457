"""Formatting of probabilities and texts in titles and captions."""

from __future__ import annotations


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
