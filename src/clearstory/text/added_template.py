"""Added templates: a chat template for a tokenizer that has none."""

from __future__ import annotations

from dataclasses import replace

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting
from clearstory.text.assistant_tokens import end_of_turn_token
from clearstory.text.chat_template import MAX_TEMPLATE_LENGTH, ChatTemplate
from clearstory.text.tokenizers import Tokenizer

CHATML = "chatml"

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"


def with_chat_template(tokenizer: Tokenizer, choice: str) -> tuple[Tokenizer, str]:
    """The tokenizer with a chat template, whose end-of-turn token becomes its end token; and a note.

    `choice`: chatml, or a file. ChatML's markers are special tokens if the vocabulary has them; otherwise
    <|im_start|> is plain text, and the end-of-text token ends turns: no token is added, since the model has no
    embedding for it. Raises BadInput for an invalid template, and for a template that does not end turns with a token.
    """
    if choice == CHATML:
        source, note = chatml(tokenizer)
    else:
        source, note = read_template(choice), f"chat template of {choice}"
    with_template = replace(tokenizer, config={**tokenizer.config, "chat_template": source})
    ChatTemplate.from_tokenizer(with_template).render([{"role": "user", "content": "a"}])  # raises for no template
    end = end_of_turn_token(with_template)
    if end is None:
        raise BadInput(
            f"the chat template {choice} does not end the assistant's turn with a special token, so generation would "
            f"never stop; write {{ eos_token }} after its content"
        )
    name = tokenizer.display_token(end)
    return replace(with_template, config={**with_template.config, "eos_token": name}), f"{note}; {name} ends a turn"


def chatml(tokenizer: Tokenizer) -> tuple[str, str]:
    """The ChatML template with the tokens of a tokenizer, and a note about them."""
    end = TURN_END if TURN_END in tokenizer.special_names else None
    if end is None and tokenizer.eos_token_id is not None:
        end = tokenizer.display_token(tokenizer.eos_token_id)
    if end is None or end not in tokenizer.special_names:
        raise BadSetting(
            f"the tokenizer has neither {TURN_END} nor an end-of-text token, so generation would never stop; use "
            "another model"
        )
    source = (
        "{% for message in messages %}{{ '"
        + TURN_START
        + "' + message.role + '\\n' + message.content + '"
        + end
        + "\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '" + TURN_START + "assistant\\n' }}{% endif %}"
    )
    missing = [name for name in (TURN_START, TURN_END) if name not in tokenizer.special_names]
    note = "chat template ChatML"
    if missing:
        note += f" (the vocabulary has no {' and no '.join(missing)}: what is missing is written as text)"
    return source, note


def read_template(file: str) -> str:
    """The template in a file. Raises BadInput if there is none."""
    path = expand_home(file)
    if not path.is_file():
        raise BadInput(f"chat_template is {file!r}, which is neither {CHATML} nor a file; give one of them")
    try:
        source = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInput(
            f"{path} is not UTF-8; chat templates must be UTF-8, so convert it, for example with iconv"
        ) from None
    if not source.strip() or len(source) > MAX_TEMPLATE_LENGTH:
        raise BadInput(f"{path} has {len(source):,} characters, too many for a chat template; give another file")
    return source
