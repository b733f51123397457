"""The picture of one sentence: what the page shows equals the library, through play, scrub, rounds and long texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import Open, Visit, needs_browser
from studio_home import fitted

import clearstory
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.lens.probes.walkthrough import walkthrough
from clearstory.models.prompts import PromptOptions
from clearstory.models.transformer.presets import GPT2
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_LSTM

needs_browser()

MODEL = "models/long"
TEXT = "a cat"
ALL = 14


@pytest.fixture(scope="module")
def window() -> Mapping[str, Any]:
    """Without animations, so that a drawn token joins the text at once; a test of the animation has its own visit."""
    return {"width": 1280, "scheme": "light", "motion": "reduce"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with room for 401 bytes, one of another architecture, and one that is no Transformer."""
    root, letters = tmp_path_factory.mktemp("picture"), train_tokenizer("bytes", [])
    small: dict[str, Any] = {"context": 401, "width": 48, "layers": 3, "heads": 2, "kv_heads": 1, "head_dim": 24}
    gpt2 = {**small, "layers": 1, "heads": 16, "kv_heads": 16, "head_dim": 3, "intermediate_size": 8}
    for name, config in (
        ("long", replace(TINY_CLEAR, **small)), ("gpt2", replace(GPT2, **gpt2)), ("lstm", TINY_LSTM),
    ):  # fmt: skip
        save_model(root / "models" / name, fitted(config, letters.vocab), letters, ModelCard(family=config.family))
    return root


def expected(home: Path, ids: list[int], model: str = MODEL, **settings: Any) -> dict[str, Any]:
    """The walkthrough of token ids."""
    opened = clearstory.open(home / model)
    return walkthrough(opened.model, opened.tokenizer, "", prompt=PromptOptions(ids=tuple(ids)), **settings)


def probabilities(home: Path, ids: list[int], temperature: float = 1.0, model: str = MODEL) -> torch.Tensor:
    """The distribution after some tokens."""
    return (clearstory.open(home / model).logits([ids])[0, -1].double() / temperature).softmax(-1)


def assert_bars(seen: Visit, exact: torch.Tensor) -> None:
    """The ten bars are the likeliest tokens with their probabilities."""
    ids = [int(number) for number in seen.numbers(".picture-bar", "data-id")]
    assert ids == exact.topk(10).indices.tolist()
    assert seen.numbers(".picture-bar", "data-probability") == pytest.approx(exact[ids].tolist(), rel=1e-3)


def assert_weights(seen: Visit, found: dict[str, Any]) -> None:
    """The table of weights, and the layer and head that it is of."""
    weights = torch.tensor(seen.numbers('[data-table="weights"] td')).view(found["head.pattern"].shape)
    torch.testing.assert_close(weights, found["head.pattern"].float(), atol=1e-4, rtol=1e-3)
    picture = seen.page.locator(".picture")
    assert [int(picture.get_attribute(f"data-{name}")) for name in ("layer", "head")] == [
        found["opened"]["layer"], found["opened"]["head"],
    ]  # fmt: skip


def test_bars_and_weights_equal_the_library_at_two_temperatures(visit: Open, home: Path) -> None:
    seen = visit(page="sentence", model=MODEL, text=TEXT)
    ids = list(TEXT.encode())
    assert_bars(seen, probabilities(home, ids))
    assert_weights(seen, expected(home, ids))
    entropy = float(seen.page.locator(".picture-next").get_attribute("data-entropy"))
    exact = probabilities(home, ids)
    assert entropy == pytest.approx(float(-(exact * exact.log2()).sum()), rel=1e-3)
    seen.page.get_by_label("Temperature").fill("0.5")
    assert_bars(seen, probabilities(home, ids, 0.5))
    assert "temperature=0.5" in seen.page.url


def test_the_page_is_the_first_that_a_model_opens_on(visit: Open) -> None:
    seen = visit(model=MODEL, text=TEXT)
    assert seen.page.locator("body").get_attribute("data-page") == "sentence"
    assert seen.page.locator(".picture").get_attribute("data-rows") == str(len(TEXT))


def test_tokens_after_an_emoji_are_the_tokenizers(visit: Open, home: Path) -> None:
    text = "👍 cat"
    seen = visit(page="sentence", model=MODEL, text=text)
    tokenizer = clearstory.open(home / MODEL).tokenizer
    chips = seen.page.locator(".picture-chip").all()
    assert [chip.inner_text() for chip in chips] == [tokenizer.display_token(id) for id in text.encode()]
    assert seen.page.locator(".picture-sentence").inner_text() == text  # the four bytes are one character


def test_a_drawn_token_is_the_next_row(visit: Open, home: Path) -> None:
    seen = visit(page="sentence", model=MODEL, text=TEXT)
    bodies: list[dict[str, Any]] = []
    seen.page.on(
        "request", lambda sent: bodies.append(json.loads(sent.post_data)) if sent.url.endswith("arrays") else None
    )
    bar = seen.page.locator(".picture-bar").nth(2)
    ids = [*TEXT.encode(), int(bar.get_attribute("data-id"))]
    bar.click()
    seen.page.locator('.picture[data-round="1"]').wait_for()
    seen.ready()
    assert [body["settings"].get("rows") for body in bodies] == [[len(TEXT), len(TEXT) + 1]]  # the new row alone
    opened = {name: bodies[0]["settings"][name] for name in ("layer", "head")}
    assert_weights(seen, expected(home, ids, **opened))
    assert_bars(seen, probabilities(home, ids))
    seen.page.reload()
    seen.ready()
    assert seen.page.locator(".picture").get_attribute("data-rows") == str(len(ids))
    assert_bars(seen, probabilities(home, ids))


def test_a_cell_is_pinned_by_keys_and_gives_its_equation(visit: Open, home: Path) -> None:
    seen = visit(page="sentence", model=MODEL, text=TEXT, layer=1, head=1)
    found = expected(home, list(TEXT.encode()), layer=1, head=1)
    grid = seen.page.locator(".picture-grid")
    grid.focus()
    for _ in TEXT:
        grid.press("ArrowDown")
    for _ in TEXT:
        grid.press("ArrowLeft")
    grid.press("ArrowRight")
    grid.press("Enter")
    seen.page.locator(".picture-pinned", has_text="Esc releases").wait_for()
    row = len(TEXT) - 1
    assert f"pin=grid.{row}.1" in seen.page.url
    line = seen.page.locator(".picture-says").inner_text().replace("−", "-")
    given = [float(number) for number in re.findall(r"= (-?[\d.]+);", line)]
    exact = [float(found[f"head.{name}"][row, 1]) for name in ("dots", "scores")]
    assert given == pytest.approx(exact, abs=0.006)
    grid.press("Escape")
    seen.page.locator(".picture-pinned:empty").wait_for(state="attached")
    assert "pin=" not in seen.page.url


def test_another_head_is_opened_by_its_small_pattern_and_by_the_menus(visit: Open, home: Path) -> None:
    seen = visit(page="sentence", model="models/gpt2", text=TEXT)
    seen.page.locator('.picture-small [data-head="13"]').click()
    seen.page.locator('.picture[data-head="13"]').wait_for()
    assert_weights(seen.ready(), expected(home, list(TEXT.encode()), "models/gpt2", layer=0, head=13))
    assert "head=13" in seen.page.url
    seen.page.get_by_label("Head", exact=True).select_option("4")
    seen.page.locator('.picture[data-head="4"]').wait_for()


def test_the_sentence_is_edited_in_its_place(visit: Open, home: Path) -> None:
    seen = visit(page="sentence", model=MODEL, text=TEXT, pin="grid.2.1")
    seen.page.get_by_label("Edit the sentence").click()
    seen.page.get_by_label("Sentence; Enter reads it").fill("dogs")
    seen.page.keyboard.press("Enter")
    seen.page.locator('.picture[data-tokens="4"]').wait_for()
    seen.ready()
    assert "pin=" not in seen.page.url  # it belonged to the old sentence
    assert_bars(seen, probabilities(home, list(b"dogs")))


def test_scrub_and_play_reach_the_end(browser: Any, server: str, home: Path) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="no-preference")
    seen = Visit(context.new_page(), server)
    seen.listen()
    seen.open(page="sentence", model=MODEL, text=TEXT, at=12.9)
    picture, scrub = seen.page.locator(".picture"), seen.page.get_by_label("Where in the round")
    for step in range(ALL + 1):
        scrub.fill(str(step))
        seen.page.locator(f'.picture[data-step="{step}"]').wait_for()
    assert picture.get_attribute("data-at") == str(ALL)
    scrub.fill("12.95")
    seen.page.get_by_label("Play (space)").click()  # a token is drawn, joins the text, and its row begins
    seen.page.locator('.picture[data-round="1"]').wait_for()
    seen.page.get_by_label("Show everything at once").click()
    seen.ready()
    assert picture.get_attribute("data-rows") == str(len(TEXT) + 1)
    drawn = int(seen.page.url.partition("drawn=")[2].partition("&")[0])
    assert_bars(seen, probabilities(home, [*TEXT.encode(), drawn]))
    context.close()
    assert not seen.faults
    assert not seen.foreign


def test_400_tokens_are_grouped_and_a_span_is_exact(visit: Open, home: Path) -> None:
    text = "the cat sat on a mat. " * 18 + "dogs"
    seen = visit(page="sentence", model=MODEL, text=text, layer=2, head=0)
    ids = list(text.encode())
    assert len(ids) == 400
    assert "400 tokens in 20 rows of up to 20" in seen.page.locator(".picture-spans").inner_text()
    assert_weights(seen, expected(home, ids, layer=2, head=0, cells=20))
    assert_bars(seen, probabilities(home, ids))
    seen.page.get_by_label("Zoom in to single tokens").click()
    seen.page.locator(".picture-spans", has_text="Tokens 380 to 399 of 400").wait_for()
    seen.ready()
    assert "rows=380.400" in seen.page.url
    window = {"rows": (380, 400), "columns": (380, 400), "cells": 20}
    assert_weights(seen, expected(home, ids, layer=2, head=0, **window))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_page(visit: Open, scheme: str) -> None:
    seen = visit(page="sentence", model=MODEL, text=TEXT, width=420, scheme=scheme)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 420
    assert seen.page.locator(".picture.narrow").count() == 1


def test_a_model_without_a_picture_says_so(visit: Open) -> None:
    seen = visit(page="sentence", model="models/lstm", text=TEXT)
    assert "residual stream" in seen.page.locator("#page").inner_text()
