"""TextToTextFormat: input of a model for a source, its targets in training, and decoding of its output.

encoder-decoder              prefix source </s>                                     target </s>
decoder with a template      source TL;DR:                                          target <end>
decoder with a chat template <user> instruction source <end> <assistant>            target <end>
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow
from clearstory.generation.prompt_format import PromptFormat
from clearstory.models.base import LanguageModel, reads_source
from clearstory.models.capabilities import Capability, family_name, has_capability
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.prompts import RAW, encode_prompt
from clearstory.tasks.text_to_text_settings import (
    DEFAULT_INSTRUCTIONS,
    DEFAULT_TEMPLATES,
    SOURCE,
    SourceTruncation,
    TextToTextSettings,
    TextToTextTask,
)
from clearstory.text.chat_prompt import ChatFormat, as_messages, has_chat_template
from clearstory.text.encoding import TextPiece
from clearstory.text.tokenizers import Tokenizer

SAVED = "clearstory_text_to_text"
"""Key of a generation_config.json with the task, the prefix and the template that a model was trained with."""

SAVED_SETTINGS = ("source_prefix", "prompt_template", "instruction")

PLACEHOLDER = "\ufdd0source\ufdd1"
"""Placeholder of a source in a rendered chat; noncharacters, which do not occur in texts."""


@dataclass(frozen=True)
class SourceIds:
    """The ids that a model reads of a source, and whether tokens of it were dropped."""

    ids: tuple[int, ...]
    is_cut: bool = False


@dataclass(frozen=True)
class TextToTextFormat:
    """Encoding of sources and targets.

    Args:
        task: translate or summarize.
        model: the model.
        tokenizer: its tokenizer.
        settings: lengths, prefix and templates.
        truncate: end to drop of a source that is too long; None raises an error.
        prompt_format: the start and end tokens of generated texts.
        reserved: number of tokens of a decoder's context reserved for the target.
    """

    task: TextToTextTask
    model: LanguageModel
    tokenizer: Tokenizer
    settings: TextToTextSettings
    truncate: SourceTruncation | None
    prompt_format: PromptFormat
    reserved: int = 0

    @classmethod
    def of(
        cls,
        task: TextToTextTask,
        model: Any,
        tokenizer: Tokenizer,
        settings: TextToTextSettings,
        truncate: SourceTruncation | None = None,
        generation_config: GenerationConfig | None = None,
    ) -> TextToTextFormat:
        """The format of a model; settings default to those of its training, if its generation config has them.

        Raises CannotDo for a model that does not generate text, BadSetting for a template that it does not use.
        """
        if not has_capability(model, Capability.CAUSAL):
            raise CannotDo(
                f"this model ({family_name(model)}) does not generate text; use an encoder-decoder (a preset: "
                "clear-translate) or a decoder"
            )
        settings = with_saved(settings, generation_config)
        check_templates(model, tokenizer, settings)
        made = PromptFormat.of(model, tokenizer, None, generation_config=generation_config, options=RAW)
        made = replace(made, eos_token_ids=with_end(made.eos_token_ids, tokenizer))
        return cls(task, model, tokenizer, settings, truncate, made)

    @property
    def reads_source(self) -> bool:
        """Whether the model is an encoder-decoder."""
        return reads_source(self.model)

    @cached_property
    def end_token_id(self) -> int:
        """The token that ends a target. Raises BadSetting for a tokenizer without one."""
        ends = self.prompt_format.eos_token_ids
        if not ends:
            raise BadSetting(
                "this tokenizer has no end-of-sequence token, so generation would never stop; choose another model"
            )
        if self.chat_pieces is not None:  # the one that ends turns
            written = [id for id in ends if self.tokenizer.display_token(id) in self.chat_format.template.source]
            ends = tuple(written) or ends
        own = self.tokenizer.eos_token_id
        return own if own is not None and own in ends else ends[0]

    @cached_property
    def chat_pieces(self) -> tuple[TextPiece, ...] | None:
        """The prompt in the model's chat template, with PLACEHOLDER for the source; None without a chat template."""
        if self.reads_source or self.settings.prompt_template is not None or not has_chat_template(self.tokenizer):
            return None
        instruction = self.settings.instruction or DEFAULT_INSTRUCTIONS[self.task]
        message = instruction.replace(SOURCE, PLACEHOLDER)
        pieces = self.chat_format.render(as_messages(message, None), answer=True).pieces
        if sum(piece.text.count(PLACEHOLDER) for piece in pieces) != 1:
            raise BadInput("the model's chat template does not contain the message unchanged; give a --prompt-template")
        return tuple(pieces)

    @cached_property
    def chat_format(self) -> ChatFormat:
        """The tokenizer with its chat template."""
        return ChatFormat.of(self.tokenizer)

    @cached_property
    def template(self) -> str:
        """The prompt of a decoder without a chat template."""
        return self.settings.prompt_template or DEFAULT_TEMPLATES[self.task]

    @property
    def description(self) -> str:
        """The prompt in one phrase, for notes; empty for an encoder-decoder without a prefix."""
        if self.reads_source:
            prefix = self.settings.source_prefix
            return f"the prefix {prefix!r} before each source" if prefix else ""
        if self.chat_pieces is not None:
            instruction = self.settings.instruction or DEFAULT_INSTRUCTIONS[self.task]
            return f"the model's chat template with the instruction {instruction!r}"
        return f"the prompt {self.template!r}"

    @property
    def source_limit(self) -> int | None:
        """Largest number of tokens that are read before a target; None for no limit."""
        context = self.model.context
        if context is not None and not self.reads_source:
            context -= self.reserved
        lengths = (context, self.settings.max_source_length)
        return min((each for each in lengths if each is not None), default=None)

    def encode_source(self, text: str, location: str = "") -> SourceIds:
        """The ids that the model reads of a source.

        Raises ContextOverflow, with both lengths, for one that is too long and not to be cut.
        """
        ids, limit = self.prompt_ids(text), self.source_limit
        if limit is None or len(ids) <= limit:
            return SourceIds(ids)
        if self.truncate is None:
            raise ContextOverflow(
                f"{location or 'a source'} has {len(ids):,} tokens{self.with_prompt}, but at most {limit:,} fit"
                f"{self.why_limit}; shorten it, or pass --truncate source-right to drop its end"
            )
        own, spans = self.tokenizer.encode_with_offsets(text)
        keep = len(own) - (len(ids) - limit)
        while keep > 0:
            cut = text[: spans[keep - 1][1]] if self.truncate == "source-right" else text[spans[len(own) - keep][0] :]
            ids = self.prompt_ids(cut)
            if len(ids) <= limit:
                return SourceIds(ids, is_cut=True)
            keep -= len(ids) - limit
        raise ContextOverflow(
            f"{location or 'a source'}: the prompt leaves no token for the source; at most {limit:,} "
            f"fit{self.why_limit}"
        )

    @property
    def with_prompt(self) -> str:
        """Description of the parts included in the length of a source."""
        return "" if self.reads_source and not self.settings.source_prefix else " with its prompt"

    @property
    def why_limit(self) -> str:
        """Reason for the limit on tokens."""
        if self.settings.max_source_length == self.source_limit:
            return " (max_source_length)"
        kept = f" less {self.reserved:,} for the target" if self.reserved and not self.reads_source else ""
        return f" (the model's context of {self.model.context:,}{kept})"

    def prompt_ids(self, text: str) -> tuple[int, ...]:
        """The ids of a source of any length, with all that is read before the target."""
        text = text.strip()
        if self.reads_source:
            return encode_prompt(self.model, self.tokenizer, (self.settings.source_prefix or "") + text).ids
        if self.chat_pieces is not None:
            pieces = [replace(each, text=each.text.replace(PLACEHOLDER, text)) for each in self.chat_pieces]
            return self.chat_format.encode(pieces).ids
        ids = encode_prompt(self.model, self.tokenizer, self.template.replace(SOURCE, text), RAW).ids
        # A tokenizer that ends every text would end the prompt, too.
        return ids[:-1] if len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id else ids

    def target_ids(self, text: str) -> tuple[int, ...]:
        """The ids of a target, with its end token."""
        text = text.strip()
        plain = not self.reads_source and self.chat_pieces is None
        between = " " if plain and not self.template[-1:].isspace() else ""
        return (*self.tokenizer.encode(between + text), self.end_token_id)

    def decode(self, ids: tuple[int, ...]) -> str:
        """The text of generated ids."""
        ends = self.prompt_format.eos_token_ids
        return self.tokenizer.decode(id for id in ids if id not in ends).strip()

    def generation_config(self, config: GenerationConfig | None, max_new_tokens: int | None) -> GenerationConfig:
        """The generation config to save: how targets are generated, and the prefix or template."""
        config = config or GenerationConfig(eos_token_ids=self.prompt_format.eos_token_ids)
        wanted = {name: value for name in SAVED_SETTINGS if (value := getattr(self.settings, name)) is not None}
        if not self.reads_source and not {"prompt_template", "instruction"} & wanted.keys():
            name = "prompt_template" if self.chat_pieces is None else "instruction"
            wanted[name] = {"prompt_template": DEFAULT_TEMPLATES, "instruction": DEFAULT_INSTRUCTIONS}[name][self.task]
        settings = self.settings
        return replace(
            config,
            eos_token_ids=self.prompt_format.eos_token_ids,
            do_sample=False,
            temperature=None,
            top_k=None,
            top_p=None,
            min_p=None,
            num_beams=settings.num_beams or config.num_beams,
            length_penalty=config.length_penalty if settings.length_penalty is None else settings.length_penalty,
            max_new_tokens=max_new_tokens or config.max_new_tokens,
            max_length=None if max_new_tokens else config.max_length,
            other={**config.other, SAVED: {"task": self.task, **wanted}},
        )


def with_end(ends: tuple[int, ...], tokenizer: Tokenizer) -> tuple[int, ...]:
    """The end tokens, with the tokenizer's own among them."""
    own = tokenizer.eos_token_id
    return ends if own is None or own in ends else (*ends, own)


def saved_settings(config: GenerationConfig | None) -> Mapping[str, Any]:
    """The settings of the task in the generation config of a fine-tuned model; {} for other models."""
    found = None if config is None else config.other.get(SAVED)
    return found if isinstance(found, Mapping) else {}


def with_saved(settings: TextToTextSettings, config: GenerationConfig | None) -> TextToTextSettings:
    """The settings, with the prefix and the template that the model was trained with where they give none."""
    saved = {name: value for name, value in saved_settings(config).items() if isinstance(value, str)}
    if settings.prompt_template is not None or settings.instruction is not None:
        saved = {name: value for name, value in saved.items() if name == "source_prefix"}
    changes = {name: saved[name] for name in SAVED_SETTINGS if getattr(settings, name) is None and name in saved}
    return replace(settings, **cast(Any, changes))


def check_templates(model: Any, tokenizer: Tokenizer, settings: TextToTextSettings) -> None:
    """Raise BadSetting for a prefix of a decoder, a prompt of an encoder-decoder, and an instruction without a chat
    template.
    """
    if reads_source(model):
        for name in ("prompt_template", "instruction"):
            if getattr(settings, name) is not None:
                raise BadSetting(
                    f"{name} is for decoders, and this model ({family_name(model)}) reads the source without a "
                    "prompt; leave it out, or use source_prefix"
                )
        return
    if settings.source_prefix is not None:
        raise BadSetting(
            f"source_prefix is for encoder-decoders, but this model ({family_name(model)}) reads a prompt; use "
            "prompt_template"
        )
    if settings.instruction is not None and not has_chat_template(tokenizer):
        raise BadSetting("instruction is a message in a chat template, but this model has none; use prompt_template")
