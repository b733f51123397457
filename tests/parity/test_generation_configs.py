"""Settings of a generation_config.json: the texts of transformers with the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import clearstory
from clearstory.formats.folders import open_model, save_model
from parity.published_kinds import generate_with_transformers, write_kind

PROMPTS = ("Hello, world!", "What is the capital of France?", "a")

SETTINGS: dict[str, dict[str, Any]] = {
    "repetition_penalty": {"repetition_penalty": 1.7},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "min_new_tokens": {"min_new_tokens": 6},
    "min_length": {"min_length": 8},
    "max_length": {"max_length": 16, "max_new_tokens": None},
    "suppress_tokens": {"suppress_tokens": [], "begin_suppress_tokens": []},
    "bad_words_ids": {"bad_words_ids": []},
    "num_beams": {"num_beams": 3, "length_penalty": 0.6, "early_stopping": True},
    "early_stopping": {"num_beams": 2, "early_stopping": "never", "length_penalty": 1.5, "repetition_penalty": 1.3},
    "forced_eos_token_id": {"forced_eos_token_id": 7},
    "forced_bos_token_id": {"forced_bos_token_id": 9, "num_beams": 2},
    "everything": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "min_new_tokens": 3, "num_beams": 4},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("generation")
    for kind in ("llama3", "t5"):
        write_kind(home / kind, kind)
    return home


def expected_ids(folder: Path, kind: str) -> list[list[int]]:
    """Ids that transformers generates after each prompt."""
    return [generate_with_transformers(folder, kind, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("kind", [pytest.param("llama3", marks=pytest.mark.slow), "t5"])
@pytest.mark.parametrize("name", SETTINGS)
def test_texts_with_a_setting_are_those_of_transformers(kind: str, name: str, home: Path) -> None:
    folder = home / kind
    file = folder / "generation_config.json"
    usual = {"do_sample": False, "max_new_tokens": 10, "eos_token_id": [5, 11], "decoder_start_token_id": 0}
    file.write_text(json.dumps(usual), encoding="utf-8")
    free = expected_ids(folder, kind)
    settings = dict(SETTINGS[name])
    if name == "suppress_tokens":
        settings |= {"suppress_tokens": [free[0][1], free[1][2]], "begin_suppress_tokens": [free[2][0]]}
    elif name == "bad_words_ids":
        settings["bad_words_ids"] = [[free[0][0]], free[1][:2], free[2][1:4], [5]]
    elif name in ("min_new_tokens", "min_length"):
        usual["eos_token_id"] = [free[0][1], free[1][2], free[2][0]]
    merged = {key: value for key, value in {**usual, **settings}.items() if value is not None}
    file.write_text(json.dumps(merged), encoding="utf-8")
    expected = expected_ids(folder, kind)
    written = clearstory.generate(folder, list(PROMPTS), raw=True)
    assert [list(each.ids) for each in written.completions] == expected
    if "beams" not in str(settings):
        assert expected != free


def test_a_setting_that_is_given_overrides_the_file(home: Path) -> None:
    file = home / "llama3" / "generation_config.json"
    file.write_text(json.dumps({"do_sample": True, "temperature": 0.7, "top_k": 3, "max_new_tokens": 4}))
    opened = open_model(home / "llama3")
    default = clearstory.generate(opened, "a", raw=True, seed=1)
    assert len(default.completions[0].ids) == 4
    same = clearstory.generate(opened, "a", raw=True, seed=1, temperature=0.7, top_k=3, max_tokens=4)
    assert default.text == same.text
    assert len(clearstory.generate(opened, "a", raw=True, seed=1, max_tokens=6).completions[0].ids) == 6
    greedy = clearstory.generate(opened, "a", raw=True, temperature=0, max_tokens=6)
    assert greedy.text == clearstory.generate(opened, "a", raw=True, top_k=1, max_tokens=6).text


def test_a_generation_config_is_written_back_and_the_unsupported_is_named(home: Path, tmp_path: Path) -> None:
    file = home / "llama3" / "generation_config.json"
    settings = {
        "eos_token_id": [3, 8],
        "temperature": 0.6,
        "top_p": 0.9,
        "do_sample": True,
        "typical_p": 0.5,
        "guidance_scale": 1.0,
        "bad_words_ids": [[4, 5]],
        "chat_format": "chatml",
    }
    file.write_text(json.dumps(settings), encoding="utf-8")
    opened = open_model(home / "llama3")
    save_model(
        tmp_path / "saved", opened.model, opened.tokenizer, opened.card, generation_config=opened.generation_config
    )
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text(encoding="utf-8"))
    assert settings.items() <= saved.items()
    assert open_model(tmp_path / "saved").generation_config == opened.generation_config
    notes: list[str] = []
    clearstory.generate(opened, "a", raw=True, max_tokens=1, on_note=notes.append)
    assert len(notes) == 1
    assert "typical_p, which is not supported" in notes[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"temperature": "hot"}, "temperature = 'hot'; it must be a number"),
        ({"eos_token_id": [1, "2"]}, "eos_token_id"),
        ({"top_p": 1.5}, "top_p = 1.5; it must be at most 1"),
        ({"num_beams": 0}, "num_beams = 0; it must be an integer of at least 1"),
        ({"bad_words_ids": 3}, "a list of lists"),
        ({"do_sample": "yes"}, "true or false"),
    ],
)
def test_invalid_values_are_named(settings: dict[str, Any], says: str, home: Path) -> None:
    file = home / "llama3" / "generation_config.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(clearstory.ClearstoryError, match="generation config") as refusal:
        open_model(home / "llama3")
    assert says in str(refusal.value)


@pytest.mark.slow
def test_end_tokens_and_defaults_survive_gguf(home: Path, tmp_path: Path) -> None:
    file = home / "llama3" / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": [404, 7, 401], "temperature": 0.5, "top_k": 9, "do_sample": True}))
    clearstory.convert(home / "llama3", tmp_path / "model.gguf")
    found = open_model(tmp_path / "model.gguf").generation_config
    assert {404, 7, 401} <= set(found.eos_token_ids)
    assert (found.temperature, found.top_k) == (0.5, 9)
