"""POST /fill-mask: the tokens that an encoder predicts at each [MASK] of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import Response

from clearstory.server.fields import request_field
from clearstory.server.streaming import json_response, single_result
from clearstory.server.text_requests import naming

if TYPE_CHECKING:
    from clearstory.server.context import RequestContext

MAX_MASKED_TEXTS = 64
"""Maximum number of texts of a request: they are processed one after another."""


@dataclass(frozen=True, kw_only=True)
class MaskRequest:
    """Texts with masks."""

    model: str = request_field("Name of the model.", max_length=4096)
    input: str | tuple[str, ...] = request_field(
        "One text or several, each with at least one mask.", min_items=1, max_items=MAX_MASKED_TEXTS, min_length=1
    )
    top: int = request_field("Number of tokens to return for each mask, most likely first.", 5, minimum=1, maximum=1000)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts one by one."""
        return (self.input,) if isinstance(self.input, str) else self.input


async def fill_masks(context: RequestContext, fields: MaskRequest) -> Response:
    """The most likely tokens for each mask, and each text with its masks filled in."""
    engine = context.engine(fields.model)
    served = engine.served
    with naming("model"):
        served.require_masks()
    with naming("input"):
        found = await single_result(
            lambda deliver: engine.submit_call(lambda: served.fill_masks(fields.texts, fields.top), deliver)
        )
    data = [{"object": "fill_mask", "index": index, **each.to_json()} for index, each in enumerate(found)]
    return json_response({"object": "list", "data": data, "model": fields.model})
