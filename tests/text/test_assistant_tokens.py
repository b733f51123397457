"""Which tokens of a conversation the assistant generates: by prefix rendering, and by the marks of a template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clearstory.errors import BadInput
from clearstory.text.added_template import with_chat_template
from clearstory.text.assistant_tokens import end_of_turn_token, trained_sequences
from clearstory.text.chat_prompt import ChatFormat, encode_chat
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer
from generation.test_chat_prompts import TEMPLATE, chat_tokenizer

MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{%- if m.role == 'assistant' %}\n  {% generation %}\n{{ m.content }}<|im_end|>\n{%- endgeneration %}\n"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)

THINKING = TEMPLATE.replace(
    "{{ m.content | trim }}",
    "{% if loop.last %}{{ m.content }}{% else %}{{ m.content.split('</think>')[-1] }}{% endif %}",
)
"""Leaves the thinking of earlier turns out, as Qwen3 does."""


def said(*texts: str, system: str | None = None) -> list[dict[str, Any]]:
    """Messages of a user and an assistant in turns."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def shown(tokenizer: Tokenizer, messages: list[dict[str, Any]], **settings: Any) -> list[str]:
    """Each sequence as text, predicted tokens in brackets."""
    found = []
    for each in trained_sequences(ChatFormat.of(tokenizer), messages, **settings):
        tokens = [tokenizer.display_token(id) for id in each.ids]
        text = "".join(f"[{token}]" if own else token for token, own in zip(tokens, each.predicted, strict=True))
        found.append(text.replace("][", "").replace("<|im_", "<").replace("|>", ">"))
    return found


def test_the_answers_and_their_ends_are_predicted() -> None:
    messages = said("a", "bc", "d<|im_end|>", "<think>e", system="Be.")
    [text] = shown(chat_tokenizer(), messages)
    assert text == (
        "<start>system↵Be.<end>↵<start>user↵a<end>↵<start>assistant↵[bc<end>]↵"
        "<start>user↵d<end><end>↵<start>assistant↵[<think>e<end>]"
    )
    [whole] = shown(chat_tokenizer(), messages[1:3], assistant_only=False)
    assert whole == "<start>[user↵a<end>↵<start>assistant↵bc<end>↵]"
    messages[2]["weight"] = 0  # only read, as in OpenAI's format
    [later] = shown(chat_tokenizer(), messages)
    assert later.count("[") == 1
    assert later.endswith("[<think>e<end>]")


@pytest.mark.parametrize("marked", [MARKED, MARKED.replace("<|im_end|>\n{%- endgen", "{% endgen").replace(
    "{% endgeneration %}", "{% endgeneration %}<|im_end|>")], ids=["with the end", "without the end"])  # fmt: skip
def test_marks_of_a_template_are_those_of_transformers(marked: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: clearstory[test]")
    tokenizer = chat_tokenizer(marked)
    tokenizer.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    end = tokenizer.ids["<|im_end|>"]
    for messages in (said("a", "b"), said("Wer da?", "É  ist,\n ich. ", "x", "y", system="S")):
        output = theirs.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
        ids, mask = output["input_ids"], [bool(each) for each in output["assistant_masks"]]
        assert list(encode_chat(tokenizer, messages, answer=False).ids) == ids
        # The end of a turn is always trained.
        mask = [own or (id == end and before) for own, id, before in zip(mask, ids, [False, *mask], strict=False)]
        [ours] = trained_sequences(ChatFormat.of(tokenizer), messages)
        assert list(ours.predicted) == mask[: len(ours.ids)]
        assert not any(mask[len(ours.ids) :])


def test_prefix_rendering_finds_what_a_template_marks() -> None:
    plain = MARKED.replace(" generation ", " if true ").replace(" endgeneration ", " endif ")
    for messages in (said("a", "b"), said("a", "é b ", "c", "d", "e", "f", system="S")):
        assert shown(chat_tokenizer(plain), messages) == shown(chat_tokenizer(MARKED), messages)


def test_turns_that_a_template_rewrites_are_sequences_of_their_own() -> None:
    messages = said("a", "hm</think>b", "c", "hm</think>d")
    assert shown(chat_tokenizer(THINKING), messages) == [
        "<start>user↵a<end>↵<start>assistant↵b<end>↵<start>user↵c<end>↵<start>assistant↵[hm</think>d<end>]",
        "<start>user↵a<end>↵<start>assistant↵[hm</think>b<end>]",
    ]
    assert len(shown(chat_tokenizer(THINKING), said("a", "b", "c", "hm</think>d"))) == 1


@pytest.mark.parametrize(
    ("template", "messages", "sentence"),
    [
        (TEMPLATE.replace("<|im_end|>", "."), said("a", "b"), "does not end the assistant's turn with a special token"),
        (TEMPLATE.replace("assistant\n{%", "bot\n{%"), said("a", "b"), "renders message 2 differently"),
        (TEMPLATE, said("a"), "no assistant message to train on"),
        ("{{ raise_exception('roles must take turns') }}", said("a", "b"), "roles must take turns"),
        (TEMPLATE, [{"role": "assistant", "content": "I begin."}], "no assistant message to train on"),
    ],
    ids=["no end", "other header", "no answer", "refused", "nothing before"],
)
def test_what_cannot_be_trained_on_is_one_sentence(template: str, messages: Any, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as error:
        trained_sequences(ChatFormat.of(chat_tokenizer(template)), messages)
    assert "\n" not in str(error.value)


def test_chatml_is_added_in_the_tokens_that_a_vocabulary_has(tmp_path: Path) -> None:
    base = replace(chat_tokenizer(), config={"eos_token": "<think>"})
    added, note = with_chat_template(base, "chatml")
    assert shown(added, said("a", "b")) == ["<start>user↵a<end>↵<start>assistant↵[b<end>]"]
    assert added.eos_token_id == end_of_turn_token(added) == added.ids["<|im_end|>"]
    assert "<|im_end|> ends a turn" in note
    without = train_tokenizer("bytes", [])  # has <|endoftext|> alone
    added, note = with_chat_template(without, "chatml")
    assert "has no <|im_start|> and no <|im_end|>" in note
    assert end_of_turn_token(added) == added.eos_token_id == without.eos_token_id
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}", encoding="utf-8")
    assert with_chat_template(without, str(file))[0].config["chat_template"] == file.read_text()
    file.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}. {% endfor %}", encoding="utf-8")
    with pytest.raises(BadInput, match=r"own\.jinja does not end the assistant's turn with a special token"):
        with_chat_template(without, str(file))
    with pytest.raises(BadInput, match="neither chatml nor a file"):
        with_chat_template(without, "chatlm")
