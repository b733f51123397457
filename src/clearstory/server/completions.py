"""POST /v1/completions: texts that continue prompts, whole or in server-sent events, and the prompts' probabilities."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from starlette.responses import Response

from clearstory.server.completion_texts import CompletionTexts
from clearstory.server.errors import RequestError
from clearstory.server.fields import refused_field, request_field
from clearstory.server.generated_text import collect_texts
from clearstory.server.grammar_fields import GrammarFields, mask_texts
from clearstory.server.logprobs import token_texts
from clearstory.server.prompts import encode_text_prompt
from clearstory.server.streaming import EventStream, TextStream, json_list_response
from clearstory.server.text_requests import MAX_TEXTS, PromptIds, largest_length, naming, text_requests
from clearstory.serving.requests import MAX_TOP_LOGPROBS, TextRequest

if TYPE_CHECKING:
    from clearstory.server.context import RequestContext
    from clearstory.serving.served_model import ServedModel

DEFAULT_LENGTH = 16
"""Default for the number of tokens of a text, as in OpenAI's API."""


@dataclass(frozen=True, kw_only=True)
class CompletionRequest(GrammarFields):
    """Prompts to continue, or the sources of an encoder-decoder."""

    prompt: str | tuple[str, ...] | tuple[int, ...] | tuple[tuple[int, ...], ...] | None = request_field(
        "One prompt or several, as texts or as token ids; null: the start of a document.", min_items=1
    )
    max_tokens: int = request_field("Maximum number of tokens to generate.", DEFAULT_LENGTH, minimum=0)
    echo: bool = request_field("Return the prompt in front of the generated text.", False)
    logprobs: int | None = request_field(
        "Return the log-probability of each token and of this many most likely alternatives.",
        None,
        minimum=0,
        maximum=MAX_TOP_LOGPROBS,
    )
    add_special_tokens: bool = request_field(
        "Add the tokenizer's special tokens to the prompt; never added to prompts of token ids.", True
    )
    parse_special: bool = request_field("Encode the strings of special tokens in a prompt as special tokens.", True)
    best_of: int | None = refused_field("send n and choose a text by its logprobs", (1,))
    suffix: str | None = refused_field(
        "only continuation is supported; for infilling use an encoder-decoder with <extra_id_0>", ("",)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens == 0 and not self.echo:
            raise RequestError(
                "max_tokens is 0, so nothing is generated; send at least 1, or echo: true for the prompt only",
                param="max_tokens",
                code="integer_below_min_value",
            )
        if self.max_tokens == 0 and self.stream:
            raise RequestError(
                "max_tokens is 0, so nothing is streamed; omit stream", param="stream", code="invalid_value"
            )
        if len(self.prompts) * self.n > MAX_TEXTS:
            raise RequestError(
                f"{len(self.prompts):,} prompts with {self.n} texts each are {len(self.prompts) * self.n:,} texts; a "
                f"request has at most {MAX_TEXTS:,}",
                param="prompt",
                code="array_above_max_length",
            )

    @property
    def prompts(self) -> tuple[str | tuple[int, ...], ...]:
        """The prompts one by one."""
        if self.prompt is None or isinstance(self.prompt, str):
            return (self.prompt or "",)
        if isinstance(self.prompt[0], int):
            return (self.prompt,)  # the first item decides what all are
        return self.prompt  # so here, too

    def name_of(self, index: int) -> str:
        """Name of the field that contains a prompt."""
        return f"prompt[{index}]" if len(self.prompts) > 1 else "prompt"


async def completions(context: RequestContext, fields: CompletionRequest) -> Response:
    """Continue prompts."""
    engine = context.engine(fields.model)
    served = engine.served
    with naming("model"):
        served.require("text")
    if fields.echo and served.prompt_format.reads_source:
        raise RequestError(
            "echo is true, but the prompt of an encoder-decoder is a source that its text does not continue; omit echo",
            param="echo",
            code="unsupported_by_model",
        )
    length = largest_length(fields.max_tokens, DEFAULT_LENGTH, context.limits)
    prompts = await asyncio.to_thread(encode_prompts, served, fields)
    requests: list[TextRequest] = []
    for index, prompt in enumerate(prompts):
        requests += text_requests(
            served,
            fields,
            prompt,
            param=fields.name_of(index),
            max_tokens=length,
            top_logprobs=fields.logprobs or 0,
            prompt_logprobs=prompt_logprobs(fields),
            first=len(requests),
        )
    requests = await asyncio.to_thread(mask_texts, requests, fields, served)
    texts = CompletionTexts(fields, prompts, token_texts(served.tokenizer), context.record)
    stream = TextStream(engine, requests)
    if fields.stream:
        return await EventStream.begin(stream, texts.chunks(stream))
    async with stream:
        found = await collect_texts(stream, context.record)
    return await json_list_response(texts.whole(found), "choices", texts.choices(found))


def prompt_logprobs(fields: CompletionRequest) -> int | None:
    """Number of alternatives for each prompt token; 0: only its log-probability, None: nothing requested."""
    if not fields.echo or (fields.logprobs is None and not fields.bits_per_byte):
        return None
    return fields.logprobs or 0


def encode_prompts(served: ServedModel, fields: CompletionRequest) -> list[PromptIds]:
    """The encoded prompts: texts are continued as they are, without a chat template."""
    found = []
    for index, prompt in enumerate(fields.prompts):
        with naming(fields.name_of(index)):
            if isinstance(prompt, str):
                options = {"add_special_tokens": fields.add_special_tokens, "parse_special": fields.parse_special}
                encoded = encode_text_prompt(served, prompt, **options)
            else:
                encoded = PromptIds(ids=prompt)
            found.append(begun(served, encoded))
    return found


def begun(served: ServedModel, prompt: PromptIds) -> PromptIds:
    """The prompt, or the start token if it is empty. Raises RequestError if there is no start token."""
    start = served.prompt_format.start_token_id
    if prompt.ids or served.prompt_format.reads_source:
        return prompt
    if start is None:
        raise RequestError(
            "the prompt is empty and this model's tokenizer has no start token; send at least one word",
            code="invalid_value",
        )
    return replace(prompt, ids=(start,))
