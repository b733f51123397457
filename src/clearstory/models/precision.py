"""Precisions of the weights in inference. Imports no torch."""

from __future__ import annotations

from typing import Literal

from clearstory.errors import BadSetting

Precision = Literal["auto", "fp32", "fp16", "bf16", "int8", "int4"]
"""Precision of constant weights; auto is the fastest of fp32, fp16 and bf16 on this machine."""

PackedPrecision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
"""A precision that was chosen."""


def resolve_precision(precision: Precision, int8: bool) -> Precision:
    """The precision of two settings, of which `int8` is another spelling. Raises BadSetting if they disagree.

    >>> resolve_precision("auto", int8=True)
    'int8'
    """
    if not int8:
        return precision
    if precision not in ("auto", "int8"):
        raise BadSetting(f"int8 and the precision {precision} are given; leave one of them out")
    return "int8"
