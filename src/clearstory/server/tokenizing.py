"""POST /tokenize and /detokenize, GET /tokenizer_info: a model's tokenizer, in vLLM's format."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from clearstory.server.chat_messages import ChatMessage
from clearstory.server.errors import RequestError
from clearstory.server.fields import request_field
from clearstory.server.logprobs import token_texts
from clearstory.server.prompts import encode_conversation, encode_text_prompt
from clearstory.server.streaming import json_response
from clearstory.server.text_requests import naming
from clearstory.text.chat_template import find_template

if TYPE_CHECKING:
    from clearstory.server.context import RequestContext
    from clearstory.serving.served_model import ServedModel


@dataclass(frozen=True, kw_only=True)
class TokenizeRequest:
    """A text or a conversation to encode."""

    model: str | None = request_field("Name of the model; default: the first model served.", None, max_length=4096)
    prompt: str | None = request_field("The text.", None)
    messages: tuple[ChatMessage, ...] | None = request_field("A conversation, instead of a text.", None, min_items=1)
    add_special_tokens: bool = request_field("Add the tokenizer's special tokens.", True)
    parse_special: bool = request_field("Encode the strings of special tokens in a text as special tokens.", True)
    add_generation_prompt: bool | None = request_field(
        "Add the start of an answer after the last message; default: true, unless that message is continued.", None
    )
    continue_final_message: bool = request_field(
        "End with the text of the last message, without the template's text after it.", False
    )
    return_token_strs: bool = request_field("Also return the tokens as strings.", False)

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            both = "both given" if self.prompt is not None else "both missing"
            raise RequestError(
                f"prompt and messages are {both}; send one of them", param="prompt", code="missing_required_parameter"
            )


@dataclass(frozen=True, kw_only=True)
class DetokenizeRequest:
    """Token ids to decode."""

    model: str | None = request_field("Name of the model; default: the first model served.", None, max_length=4096)
    tokens: tuple[int, ...] = request_field("Token ids.", minimum=0)


async def tokenize(context: RequestContext, fields: TokenizeRequest) -> Response:
    """The token ids of a text or of a conversation."""
    served = served_model(context, fields.model)
    return json_response(await asyncio.to_thread(tokenized, served, fields))


def tokenized(served: ServedModel, fields: TokenizeRequest) -> dict[str, Any]:
    """The response of `tokenize`."""
    if fields.messages is not None:
        with naming("messages"):
            served.require("chat")
            ids = encode_conversation(
                served,
                fields.messages,
                answer=fields.add_generation_prompt is not False,
                continue_last=fields.continue_final_message,
                limited=False,
            ).ids
    else:
        with naming("prompt"):
            options = {"add_special_tokens": fields.add_special_tokens, "parse_special": fields.parse_special}
            ids = encode_text_prompt(served, fields.prompt or "", **options).ids
    names = token_texts(served.tokenizer)
    return {
        "count": len(ids),
        "max_model_len": served.model.context,
        "tokens": list(ids),
        "token_strs": [names.name(id) for id in ids] if fields.return_token_strs else None,
    }


async def detokenize(context: RequestContext, fields: DetokenizeRequest) -> Response:
    """The text of token ids, including special tokens."""
    served = served_model(context, fields.model)
    with naming("tokens"):
        return json_response({"prompt": await asyncio.to_thread(decoded, served, fields.tokens)})


def decoded(served: ServedModel, ids: tuple[int, ...]) -> str:
    """The text of token ids, with special tokens as their strings."""
    tokenizer = served.tokenizer
    special = tokenizer.special_tokens_mask
    text, run = bytearray(), list[int]()
    for id in ids:
        if id < tokenizer.vocab and special[id]:
            if run:
                text += tokenizer.decode_bytes(run, begins=not text)
                run = []
            text += tokenizer.display_token(id).encode()
        else:
            run.append(id)
    text += tokenizer.decode_bytes(run, begins=not text)
    return text.decode("utf-8", "replace")


def served_model(context: RequestContext, name: str | None) -> ServedModel:
    """The model with this name, or the first model if there is no name."""
    return context.engine(next(iter(context.engines)) if name is None else name).served


async def tokenizer_info(context: RequestContext) -> Response:
    """The configuration of the first model's tokenizer: its special tokens and its chat template."""
    served = served_model(context, None)
    tokenizer = served.tokenizer
    roles = {f"{role}_token": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "unk", "pad", "mask")}
    named = {name: None if id is None else tokenizer.display_token(id) for name, id in roles.items()}
    return json_response(
        {
            **tokenizer.config,
            **named,
            "tokenizer_class": str(tokenizer.config.get("tokenizer_class", "PreTrainedTokenizerFast")),
            "chat_template": find_template(tokenizer.config),
            "model": served.name,
        }
    )
