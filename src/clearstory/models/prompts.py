"""Prompts: texts encoded as the input ids of a model, with its special tokens, and checked before any computation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow, VocabularyMismatch
from clearstory.models.base import LanguageModel, reads_source
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.config import Config
from clearstory.text.chat_prompt import encode_chat_prompt, has_chat_template
from clearstory.text.decoded_text import decode_with_spans
from clearstory.text.encoding import EncodedText, TokenOrigins, encode_parsing, encode_text
from clearstory.text.sentinels import sentinels
from clearstory.text.special_tokens import cls_and_sep_ids
from clearstory.text.start_tokens import HasStartTokens as HasStartTokens
from clearstory.text.start_tokens import bos_or_eos_token_id as bos_or_eos_token_id
from clearstory.text.tokenizers import Tokenizer

Truncation = Literal["left"]
"""How a prompt longer than the context is shortened: "left" drops its beginning."""


def find_start_token_id(config: Config, tokenizer: HasStartTokens) -> int | None:
    """The token that generation starts after when the prompt is empty: the config's own, else the tokenizer's."""
    start = config.start_token_id
    return bos_or_eos_token_id(tokenizer) if start is None else start


@dataclass(frozen=True)
class PromptOptions:
    """Options of encoding a text as a prompt.

    Args:
        raw: True for a text to continue, False for a message where the model has a chat template.
        system: system message before the text in a chat template; None for none.
        add_special_tokens: whether the special tokens that the tokenizer adds around a text are added.
        ids: token ids that are read as they are, in place of the text: that of `decode_with_spans`.
    """

    raw: bool = False
    system: str | None = None
    add_special_tokens: bool = True
    ids: tuple[int, ...] | None = None


RAW = PromptOptions(raw=True)
"""Options of a plain text, with the special tokens that the tokenizer adds."""


@dataclass(frozen=True)
class EncodedPrompt:
    """Input ids of a text; for an encoder-decoder, those of its source.

    Args:
        encoded: the ids and where they come from; those of a chat template, too, are not of the user's text.
        continues_prompt: whether generated text continues the user's text; False for a chat and for a source.
        chat: whether the chat template was applied.
    """

    encoded: EncodedText
    continues_prompt: bool = True
    chat: bool = False

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids."""
        return self.encoded.ids

    @property
    def special(self) -> tuple[bool, ...]:
        """For each token, whether it is special or of the chat template, and not of the user's text."""
        return self.encoded.special

    @property
    def spans(self) -> tuple[tuple[int, int] | None, ...]:
        """For each token, its characters [start, stop) in the user's text; None for a token that is not of it."""
        return self.encoded.spans

    def __len__(self) -> int:
        return len(self.ids)


def encode_prompt(
    model: LanguageModel, tokenizer: Tokenizer, text: str, options: PromptOptions = PromptOptions()
) -> EncodedPrompt:
    """The ids of a text as the model reads it, and what of it each token is.

    Special tokens are those that the model's own tokenizer adds around a text. An encoder reads [CLS] text [SEP], and
    [MASK] in the text is that token. The source of an encoder-decoder ends as its tokenizer ends texts, and its
    sentinels <extra_id_N> are tokens. A causal model with a chat template reads the text as a user's message, unless
    `options.raw`. Nothing else in the text becomes a special token. An empty text is the start token where the
    tokenizer adds none.

    Raises CannotDo for a system message and a model without a chat template, BadInput for a template that fails and for
    text that is not valid Unicode.
    """
    if options.ids is not None:
        return EncodedPrompt(decode_with_spans(tokenizer, options.ids)[1])
    check_unicode(text)
    check_unicode(options.system or "")
    chat = is_chat(model, tokenizer, options)
    if options.system is not None and not chat:
        reason = "raw text has no system message" if has_chat_template(tokenizer) else "this model has no chat template"
        raise CannotDo(f"{reason}, so a system message cannot be given; leave it out")
    if has_capability(model, Capability.BIDIRECTIONAL):
        return EncodedPrompt(encode_for_encoder(tokenizer, text, options.add_special_tokens))
    if reads_source(model):
        return EncodedPrompt(encode_source(tokenizer, text, options.add_special_tokens), continues_prompt=False)
    if chat and (text or options.system is not None):
        return EncodedPrompt(encode_chat_prompt(tokenizer, text, options.system), continues_prompt=False, chat=True)
    encoded = encode_text(tokenizer, text, add_special_tokens=options.add_special_tokens)
    start = None if encoded.ids else find_start_token_id(cast(Any, model).config, tokenizer)
    return EncodedPrompt(encoded if start is None else EncodedText((start,), TokenOrigins((True,), (None,))))


def check_unicode(text: str) -> None:
    """Raises BadInput for a text with half a surrogate pair, which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"character {error.start:,} of the text is half of a surrogate pair (U+{ord(text[error.start]):04X}), "
            "which is not a character; remove it"
        ) from None


def is_chat(model: LanguageModel, tokenizer: Tokenizer, options: PromptOptions = PromptOptions()) -> bool:
    """Whether texts are encoded as messages in the tokenizer's chat template."""
    reads_text = has_capability(model, Capability.BIDIRECTIONAL) or reads_source(model)
    return not options.raw and not reads_text and has_chat_template(tokenizer)


def encode_for_encoder(tokenizer: Tokenizer, text: str, add_special_tokens: bool = True) -> EncodedText:
    """[CLS] text [SEP] in which the mask token is parsed. Raises CannotDo if the tokenizer has no [CLS] and [SEP]."""
    mask = tokenizer.mask_token_id
    parsed = [] if mask is None else [tokenizer.display_token(mask)]
    if not add_special_tokens or tokenizer.post_processor_ids:
        return encode_parsing(tokenizer, text, parsed, add_special_tokens=add_special_tokens)
    first, last = cls_and_sep_ids(tokenizer)
    return encode_parsing(tokenizer, text, parsed).surrounded((first,), (last,))


def encode_source(tokenizer: Tokenizer, text: str, add_special_tokens: bool = True) -> EncodedText:
    """A source text in which sentinels are parsed, ended as the tokenizer ends texts, else by its end token."""
    parsed = [f"<extra_id_{number}>" for number in range(len(sentinels(tokenizer)))]
    encoded = encode_parsing(tokenizer, text, parsed, add_special_tokens=add_special_tokens)
    end = tokenizer.eos_token_id
    if not add_special_tokens or tokenizer.post_processor_ids or end is None:
        return encoded
    return encoded.surrounded((), (end,))


def prepare_source(model: LanguageModel, source: Sequence[int] | None, truncate: Truncation | None = None) -> list[int]:
    """The ids of a source, checked as `prepare_prompt` checks a prompt; empty for a model that reads no source.

    Raises CannotDo if a source is missing, or given to a model that reads none.
    """
    if reads_source(model) and source is None:
        raise CannotDo("this model is an encoder-decoder and needs a source; pass the text to translate or summarize")
    if source is not None and not reads_source(model):
        raise CannotDo("this model continues a prompt and has no source; pass the text as the prompt")
    return [] if source is None else prepare_prompt(model, source, None, truncate)


def prepare_prompt(
    model: LanguageModel, prompt: Sequence[int], start_token_id: int | None = None, truncate: Truncation | None = None
) -> list[int]:
    """The ids of a prompt, checked; an empty prompt becomes `start_token_id`.

    Raises BadInput for an empty prompt without a start token, ContextOverflow for a prompt longer than the context
    (unless `truncate` is "left"), VocabularyMismatch for an id outside the vocabulary.
    """
    if truncate not in (None, "left"):
        raise BadSetting(
            f"truncate is {truncate!r}; it must be 'left', which keeps the end of a long prompt, or None, which "
            "raises an error"
        )
    ids = [int(id) for id in prompt]
    if not ids:
        if start_token_id is None:
            raise BadInput("the prompt is empty and this model's tokenizer has no start token; give at least one word")
        ids = [start_token_id]
    wrong = next((id for id in ids if not 0 <= id < model.vocab), None)
    if wrong is not None:
        raise VocabularyMismatch(
            f"token id {wrong:,} lies outside the model's vocabulary of {model.vocab:,}; "
            "open the tokenizer that was saved with the model"
        )
    if model.context is not None and len(ids) > model.context:
        if truncate is None:
            raise ContextOverflow(
                f"the prompt has {len(ids):,} tokens and the model's context holds {model.context:,}; "
                "shorten it, or pass --truncate left to keep its end"
            )
        ids = ids[-model.context :]
    return ids


def keep_recent_half(ids: Sequence[int], context: int) -> Sequence[int]:
    """The last half of a context's worth of ids, from which a sequence continues when its context is full.

    The half is processed again, as if nothing had come before. That is exact by definition, for learned and for rotary
    positions; a sliding KV cache would be neither, since its keys were computed with tokens that are gone.
    """
    return ids[-max(1, context // 2) :]
