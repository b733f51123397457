"""POST /v1/chat/completions: answers of a chat model, whole or in server-sent events."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from clearstory.server.chat_answers import ChatAnswers
from clearstory.server.chat_messages import AssistantMessage, ChatMessage
from clearstory.server.errors import RequestError
from clearstory.server.fields import refused_field, request_field
from clearstory.server.generated_text import collect_texts
from clearstory.server.grammar_fields import mask_texts, with_grammar
from clearstory.server.logprobs import token_texts
from clearstory.server.prompts import encode_conversation
from clearstory.server.streaming import EventStream, TextStream, json_response
from clearstory.server.text_requests import largest_length, naming, text_requests
from clearstory.server.tool_fields import ToolFields
from clearstory.serving.requests import MAX_TOP_LOGPROBS

if TYPE_CHECKING:
    from clearstory.server.context import RequestContext
    from clearstory.serving.served_model import ServedModel

MAX_TOKENS = 1024
"""Maximum number of tokens of an answer if neither the request nor the model's generation config sets it."""


@dataclass(frozen=True, kw_only=True)
class ChatCompletionRequest(ToolFields):
    """A conversation to continue."""

    messages: tuple[ChatMessage, ...] = request_field("The conversation.", min_items=1)
    max_completion_tokens: int | None = request_field(
        "Maximum number of tokens to generate; default: that of the model's generation config, or 1,024.",
        None,
        minimum=1,
    )
    max_tokens: int | None = request_field("Deprecated name of max_completion_tokens.", None, minimum=1)
    logprobs: bool = request_field("Return the log-probability of each generated token.", False)
    top_logprobs: int | None = request_field(
        "Number of most likely alternatives to return for each token.", None, minimum=0, maximum=MAX_TOP_LOGPROBS
    )
    continue_final_message: bool = request_field(
        "Continue the last message, the start of an answer, instead of starting a new one.", False
    )
    add_generation_prompt: bool | None = request_field(
        "Add the start of an answer after the last message; default: true, unless that message is continued.", None
    )
    metadata: dict[str, str] | None = request_field("Labels of the request; have no effect.", None, max_items=16)
    safety_identifier: str | None = request_field("Identifier of the end user; has no effect.", None, max_length=1000)
    prompt_cache_key: str | None = request_field(
        "Has no effect; common prefixes of prompts are found without it.", None, max_length=1000
    )
    store: bool | None = refused_field("answers are not stored", (False,))
    audio: Any = refused_field("answers are text")
    modalities: Any = refused_field("answers are text", (["text"],))
    prediction: Any = refused_field("answers are generated token by token")
    reasoning_effort: Any = refused_field("the reasoning of a model cannot be adjusted", ("none",))
    verbosity: Any = refused_field("describe the length of answers in the system message", ("medium",))
    service_tier: Any = refused_field("all requests have the same priority", ("auto", "default"))
    prompt_cache_retention: Any = refused_field("prompts are cached while memory allows")
    prompt_cache_options: Any = refused_field("prompts are cached while memory allows")
    moderation: Any = refused_field("answers are not moderated")
    web_search_options: Any = refused_field("web search is not available")
    functions: Any = refused_field("it is deprecated; send tools", ([],))
    function_call: Any = refused_field("it is deprecated; send tool_choice", ("none", "auto"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError(
                "top_logprobs needs logprobs: true; send both", param="top_logprobs",
                code="invalid_value",
            )  # fmt: skip
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise RequestError(
                f"max_tokens is {self.max_tokens:,} and max_completion_tokens {self.max_completion_tokens:,}; they "
                "mean the same, so send only one of them",
                param="max_tokens",
                code="invalid_value",
            )
        if self.continue_final_message and self.add_generation_prompt:
            raise RequestError(
                "continue_final_message and add_generation_prompt are both true; set at most one of them",
                param="add_generation_prompt",
                code="invalid_value",
            )
        if self.continue_final_message and not isinstance(self.messages[-1], AssistantMessage):
            raise RequestError(
                f"continue_final_message is true, but the last message has the role {self.messages[-1].role}; it must "
                "be the start of the assistant's answer",
                param="continue_final_message",
                code="invalid_value",
            )


async def chat_completions(context: RequestContext, fields: ChatCompletionRequest) -> Response:
    """Answer a conversation."""
    engine = context.engine(fields.model)
    served = engine.served
    with naming("model"):
        served.require("chat")
    length = length_of(served, context, fields)
    use = await asyncio.to_thread(fields.tool_use, served)
    with naming("messages"):
        prompt = await asyncio.to_thread(
            encode_conversation,
            served,
            fields.messages,
            answer=fields.add_generation_prompt is not False,
            continue_last=fields.continue_final_message,
            truncate=fields.truncate == "left",
            reserved_tokens=length,
            tools=[] if use is None else [tool.template_value() for tool in use.tools],
        )
    requests = text_requests(
        served, fields, prompt, param="messages", max_tokens=length, top_logprobs=fields.top_logprobs or 0
    )
    if use is None:
        requests = await asyncio.to_thread(mask_texts, requests, fields, served)
    else:
        requests = await asyncio.to_thread(with_grammar, requests, use.grammar(), served, "tools")
    answers = ChatAnswers(fields, prompt, token_texts(served.tokenizer), context.record, served.tokenizer, use)
    stream = TextStream(engine, requests)
    if fields.stream:
        return await EventStream.begin(stream, answers.chunks(stream))
    async with stream:
        texts = await collect_texts(stream, context.record)
    return json_response(answers.response(texts))


def length_of(served: ServedModel, context: RequestContext, fields: ChatCompletionRequest) -> int:
    """Maximum number of tokens of an answer."""
    name = "max_tokens" if fields.max_completion_tokens is None else "max_completion_tokens"
    requested = fields.max_completion_tokens or fields.max_tokens
    return largest_length(requested, served.generation_config.max_new_tokens or MAX_TOKENS, context.limits, name)
