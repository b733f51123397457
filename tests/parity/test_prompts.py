"""Prompts of ten published kinds of tokenizers: ids with special tokens, greedy text and stops as in transformers."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import clearstory
from clearstory.formats.folders import OpenedModel, open_model
from clearstory.models.prompts import RAW, encode_prompt
from clearstory.text.assistant_tokens import end_of_turn_token, trained_sequences
from clearstory.text.chat_prompt import ChatFormat, encode_chat
from clearstory.text.tokenizers import Tokenizer
from parity.published_kinds import KINDS, generate_with_transformers, write_kind

PROMPTS = (
    "Hello, world!",
    "What is the capital of France?",
    "a",
    " leading space",
    "two  spaces",
    "trailing space ",
    "line\nbreak",
    "\n\nlines first",
    "tab\there",
    "naïve café",
    "東京タワー",
    "🙂👍 emoji",
    "It's 3:45, isn't it?",
    "1234567890",
    "def f(x):\n    return x",
    "UPPER lower MiXeD",
    "...!?",
    "нещо на Български",
    "a " * 9,
    "  \n mixed white",
)

QUICK = ("llama3", "phi3", "marian")
"""Kinds whose texts are compared in every run of the tests."""

CHAT_KINDS = ("llama2", "llama3", "mistral", "gemma", "qwen", "phi3")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("kinds")
    for kind in KINDS:
        write_kind(home / kind, kind)
    return {kind: home / kind for kind in KINDS}


# Marian's tokenizer recommends a library that changes punctuation; without it, none is changed.
pytestmark = pytest.mark.filterwarnings("ignore:Recommended")


@cache
def open_both(folder: Path) -> tuple[OpenedModel, Tokenizer, Any]:
    """Our model and tokenizer of a folder, and the tokenizer of transformers."""
    opened = open_model(folder)
    assert opened.tokenizer is not None
    return opened, opened.tokenizer, AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_with_special_tokens_are_those_of_transformers(kind: str, folders: dict[str, Path]) -> None:
    opened, ours, theirs = open_both(folders[kind])
    for prompt in PROMPTS:
        encoded = encode_prompt(opened.model, ours, prompt, RAW)
        assert list(encoded.ids) == theirs(prompt)["input_ids"], prompt
        assert len(encoded.ids) == len(encoded.special) == len(encoded.spans)
        for special, span in zip(encoded.special, encoded.spans, strict=True):
            assert special == (span is None)


@pytest.mark.parametrize("kind", CHAT_KINDS)
def test_ids_of_chats_are_those_of_transformers(kind: str, folders: dict[str, Path]) -> None:
    opened, ours, theirs = open_both(folders[kind])
    for prompt in PROMPTS:
        encoded = encode_prompt(opened.model, ours, prompt)
        messages = [{"role": "user", "content": prompt}]
        assert list(encoded.ids) == theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"], (
            prompt
        )
        covered = sorted(span for span in encoded.spans if span is not None)
        body = prompt.strip()
        assert covered[0][0] <= prompt.index(body) + (kind in ("llama2", "mistral", "phi3")), prompt
        assert covered[-1][1] >= prompt.index(body) + len(body), prompt


@pytest.mark.parametrize("kind", CHAT_KINDS)
def test_ids_of_conversations_are_those_of_transformers(kind: str, folders: dict[str, Path]) -> None:
    _, ours, theirs = open_both(folders[kind])
    for start in range(0, 12, 4):
        turns = [prompt.strip() for prompt in PROMPTS[start : start + 4]]
        messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)]
        ids = theirs.apply_chat_template(messages)["input_ids"]
        assert list(encode_chat(ours, messages, answer=False).ids) == ids, turns
        sequences = trained_sequences(ChatFormat.of(ours), messages)
        ends = {end_of_turn_token(ours)}
        assert len(sequences) == 1
        trained = sequences[0]
        assert list(trained.ids) == ids[: len(trained.ids)]
        own = [id for id, predicted in zip(trained.ids, trained.predicted, strict=True) if predicted]
        assert sum(id in ends for id in own) >= 1
        for text in turns[1::2]:
            assert text in ours.decode(own), (kind, text)
        for text in turns[0::2]:
            assert len(text) == 1 or text not in ours.decode(own), (kind, text)


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != "bert"]
)
def test_greedy_texts_and_stops_are_those_of_transformers(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    free = [generate_with_transformers(folders[kind], kind, prompt, max_new_tokens=8) for prompt in PROMPTS[:3]]
    # Two end tokens, each of which ends one of the texts within its first tokens.
    ends = [free[0][3], free[1][5]]
    write_kind(tmp_path / kind, kind, eos_token_id=ends, max_new_tokens=12, do_sample=False)
    model, _, theirs = open_both(tmp_path / kind)
    written = clearstory.generate(model, list(PROMPTS), raw=True)
    for prompt, completion in zip(PROMPTS, written.completions, strict=True):
        expected = generate_with_transformers(tmp_path / kind, kind, prompt)
        assert list(completion.ids) == expected, prompt
        assert (completion.finished == "eos") == (expected[-1] in ends), prompt
        text = theirs.decode(expected, skip_special_tokens=True)
        if not completion.continues_prompt:  # sentinels are shown here
            assert re.sub("<extra_id_[0-9]+>", "", completion.text) == text, prompt
    assert {completion.finished for completion in written.completions} >= {"eos"}
