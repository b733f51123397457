"""Chips are the tokens that the model reads: emoji, flags, accents, [MASK], start tokens, chat templates."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsing import Open, Visit, needs_browser
from studio_home import client, fitted

import clearstory
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.lens.hooks.passage import encode_passage
from clearstory.models.prompts import PromptOptions
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_GPT2

sys.path.insert(0, str(Path(__file__).parents[1] / "lens"))
from test_prompt_tokens import SIZES, with_specials

needs_browser()

ENGLISH = "The old king of Israel and the king of England"
TEXTS = {
    "emoji": "👍 the king of Israel",
    "flag": "🇩🇪 the 👩‍👩‍👧 king 𝒳 of",
    "combining": "the cafe\u0301 king n\u0303 of Israel",
    "words": "the king of Israel",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of every way to read a text: plain, with a start token, as a chat, an encoder and an encoder-decoder."""
    root = tmp_path_factory.mktemp("readers")
    plain = train_tokenizer("bpe:300", [" ".join(TEXTS.values()) + ENGLISH * 9])
    wordpiece = train_tokenizer("wordpiece:90", [ENGLISH * 20])
    wide = {"context": 96}
    models: dict[str, tuple[Any, Any]] = {
        "plain": (replace(TINY_GPT2, **wide), plain),
        "llama": (replace(TINY_CLEAR, **wide), with_specials(bos=True)),
        "chat": (replace(TINY_CLEAR, context=160), with_specials(bos=True, chat=True)),
        "bert": (replace(BERT_TINY, **SIZES), wordpiece),
        "t5": (replace(T5_SMALL, **SIZES, decoder_start_token_id=0), with_specials(eos=True)),
    }
    for name, (config, tokenizer) in models.items():
        save_model(root / name, fitted(config, tokenizer.vocab), tokenizer, ModelCard())
    return root


def pieces_read(home: Path, name: str, text: str, **prompt: Any) -> list[str]:
    """The tokens that the library reads, as display text."""
    opened = clearstory.open(home / name)
    passage = encode_passage(opened.model, opened.tokenizer, text, prompt=PromptOptions(**prompt))
    return [opened.tokenizer.display_token(id) for id in passage.text_ids]


def chips(seen: Visit) -> list[str]:
    """The texts of the chips under the sentence."""
    return [each.inner_text() for each in seen.page.locator("#chips .chip").all()]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_spans_of_tokens_count_code_points_and_give_their_text(home: Path, text: str) -> None:
    for name in ("plain", "llama", "chat", "t5"):
        trace = client(home).post("/api/trace", json={"model": name, "text": text, "top": 0}).json()
        assert [token["piece"] for token in trace["tokens"]] == pieces_read(home, name, text)
        inside = [token for token in trace["tokens"] if token["text"] is not None]
        assert all(token["text"] == text[token["start"] : token["stop"]] for token in inside)
        assert all(token["special"] for token in trace["tokens"] if token["text"] is None)
        assert {at for token in inside for at in range(token["start"], token["stop"])} == set(range(len(text)))


def test_text_after_an_emoji_is_not_cut(visit: Open, home: Path) -> None:
    for text in TEXTS.values():
        seen = visit(page="tokens", model="plain", text=text)
        assert chips(seen) == pieces_read(home, "plain", text)
        rows = seen.page.locator('[data-card="pieces"] tr[data-id]').all()
        shown = [row.locator("td").nth(4).inner_text() for row in rows]
        trace = client(home).post("/api/trace", json={"model": "plain", "text": text, "top": 0}).json()
        assert shown == [token["text"].replace(" ", "␣") for token in trace["tokens"]]
        with seen.page.expect_download() as download:
            seen.page.locator('[data-card="pieces"] button', has_text="CSV").click()
        table = list(csv.reader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
        assert [row[4] for row in table[1:] if row] == [token["text"] for token in trace["tokens"]]
    seen.page.locator("#chips .chip", has_text="king").first.click()
    seen.choose("embeddings")
    assert seen.page.locator('[name="word"]').input_value() == "king"


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_chips_hold_special_tokens_and_a_pinned_chip_marks_its_row(visit: Open, home: Path, name: str) -> None:
    text = "The [MASK] of England" if name == "bert" else "the king of England"
    seen = visit(page="attention", model=name, text=text)
    read = pieces_read(home, name, text)
    assert chips(seen) == read
    if name == "bert":
        assert (read[0], read[-1]) == ("[CLS]", "[SEP]")
        assert "[MASK]" in read
    assert seen.page.locator("#chips .chip.special").count() >= 1
    position = len(read) - 2
    seen.page.locator("#chips .chip").nth(position).click()
    seen.ready()
    assert f"uery {read[position]} ({position}), pinned" in seen.page.locator("#words").inner_text()
    readout = seen.page.locator('[data-card="head-pattern"] .readout').inner_text()
    assert f"row {read[position]}" in readout


def test_a_chat_is_read_through_the_template_unless_told_otherwise(visit: Open, home: Path) -> None:
    text = "the king <|im_end|>"
    seen = visit(page="tokens", model="chat", text=text)
    assert chips(seen) == pieces_read(home, "chat", text)
    assert chips(seen).count("<|im_end|>") == 1  # the template's; what a user types is text
    assert not seen.page.locator("#system").is_visible()  # behind one button
    seen.page.locator("#prompting summary").click()
    seen.page.locator("#system").fill("be old")
    seen.page.locator("#system").press("Enter")
    seen.ready()
    assert chips(seen) == pieces_read(home, "chat", text, system="be old")
    assert "system=be+old" in seen.page.url
    seen.page.locator("#chat").uncheck()
    seen.ready()
    assert chips(seen) == pieces_read(home, "chat", text, raw=True)
    assert not seen.page.locator("#system").is_visible()
    seen.page.locator("#specials").uncheck()
    seen.ready()
    assert chips(seen) == pieces_read(home, "chat", text, raw=True, add_special_tokens=False)
    seen.page.locator("#model").select_option("plain")
    seen.ready()
    assert not seen.page.locator("#prompting").is_visible()


def test_every_card_of_a_chat_reads_the_same_tokens(visit: Open, home: Path) -> None:
    seen = visit(page="attention", model="chat", text="the king")
    read = pieces_read(home, "chat", "the king")
    assert int(seen.page.locator('[data-card="head-pattern"] .card-body').get_attribute("data-rows")) == len(read)
    code = seen.page.locator('[data-card="head-pattern"] button', has_text="Copy Python")
    seen.page.locator("#prompting summary").click()
    seen.page.locator("#chat").uncheck()
    seen.ready()
    code.click()
    assert "raw=True" in seen.page.evaluate("() => navigator.clipboard.readText()")
    whole = clearstory.generate(home / "chat", "the king", max_tokens=1, temperature=0).completions[0]
    asked = {"model": "chat", "text": "the king", "temperature": 0}
    answer = client(home).post("/api/generated-token", json=asked).json()
    assert answer["id"] == whole.ids[0]
    assert json.dumps(answer["text"]) == json.dumps(whole.text)


def test_cards_of_a_page_show_one_head(visit: Open) -> None:
    seen = visit(page="attention", model="llama", text="the king of England")
    body = seen.page.locator('[data-card="head-pattern"] .card-body')
    layer, head = body.get_attribute("data-layer"), body.get_attribute("data-head")
    walk = seen.page.locator('[data-card="head"]')
    walk.scroll_into_view_if_needed()
    seen.page.locator('[data-card="head"][data-state="drawn"]').wait_for()
    assert f"Head {head} of layer {layer}" in walk.locator("h2").inner_text()


@pytest.mark.parametrize("width", [1280, 420])
def test_pages_open_at_the_top(visit: Open, width: int) -> None:
    seen = visit(page="attention", model="llama", text="the king of England", width=width)
    seen.page.set_viewport_size({"width": width, "height": 720})
    for name in ("residual-stream", "next-token", "attention", "generate"):
        seen.page.evaluate("() => scrollTo(0, 900)")
        seen.choose(name)
        assert seen.page.evaluate("() => scrollY") == 0
        assert seen.page.locator("#text").is_visible()
