"""The pages Compare and Context in a browser: what stands there is what the library says, on both sides."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsing import SCREENSHOTS, Open, Visit, needs_browser

import clearstory
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.lens.probes.word_in_context import EXAMPLE_SENTENCES
from clearstory.studio.context_api import compare_contexts
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, shaken

needs_browser()

CLEAR, LSTM, WORDS, SHORT = "models/clear", "models/lstm", "models/words", "runs/short"
ONE, OTHER = "a model of the world", "a fashion model"


@pytest.fixture(scope="module")
def home(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The studio's folder with a second run, and a model of whole words which the bank of sentences fits into."""
    root = Path(shutil.copytree(made, tmp_path_factory.mktemp("compare") / "home"))
    shutil.copytree(root / SHORT, root / "runs" / "again")
    tokenizer = train_tokenizer("words", [*EXAMPLE_SENTENCES, ONE, OTHER])
    model = shaken(replace(TINY_CLEAR, vocab=tokenizer.vocab)).float()
    save_model(root / WORDS, model, tokenizer, ModelCard())
    return root


def card(seen: Visit, name: str) -> Any:
    """A card of the page."""
    return seen.page.locator(f'[data-card="{name}"]')


def copied(seen: Visit, name: str) -> str:
    """The Python of a card, as it is on the clipboard."""
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    card(seen, name).locator("button", has_text="Copy Python").click()
    card(seen, name).locator("button", has_text="Copied").wait_for()
    return str(seen.page.evaluate("() => navigator.clipboard.readText()"))


def run(code: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the code calls `view`, run in the studio's folder."""
    monkeypatch.chdir(home)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["view"]


# ---- compare


def test_two_sentences_are_compared_and_linked(visit: Open, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = visit(page="compare", model=CLEAR, text="the cat", text_b="the cot", view="attention", layer=0, head=1)
    apart = clearstory.inspect(home / CLEAR, "the cat", view="attention", compare_text="the cot", layer=0, head=1)
    body = card(seen, "difference").locator(".card-body")
    signs = [sum(value * sign > 0 for row in apart.values for value in row) for sign in (1, -1)]
    assert [body.locator(f"rect.{name}").count() for name in ("apart", "hollow-apart")] == signs
    fills = [
        body.locator(f"rect.{name}").first.evaluate("each => getComputedStyle(each).fill")
        for name in ("apart", "hollow-apart")
    ]
    assert len(set(fills)) == 2
    assert card(seen, "difference").locator(".caption").inner_text() == apart.caption
    assert "A and B differ in: sentences." in card(seen, "sides").inner_text()
    # What is pointed at and pinned in one is so in all.
    card(seen, "b").locator(".grid-field").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight"):
        seen.page.keyboard.press(key)
    seen.page.keyboard.press("Enter")
    for name in ("a", "b", "difference"):
        inside = card(seen, name).locator("[data-pinned]")
        assert inside.get_attribute("data-pinned") == "2"
    value = card(seen, "difference").locator("[data-value]").get_attribute("data-value")
    assert float(value) == pytest.approx(apart.values[2][1])
    seen.page.keyboard.press("Escape")
    assert card(seen, "difference").locator("[data-pinned]").get_attribute("data-pinned") == ""
    view = run(copied(seen, "difference"), home, monkeypatch)
    assert view == apart


def test_next_tokens_equal_the_library_and_are_linked(visit: Open, home: Path) -> None:
    seen = visit(page="compare", model=CLEAR, text="the cat", text_b="a dog", v_top=5)
    apart = clearstory.inspect(home / CLEAR, "the cat", compare_text="a dog", top=5)
    drawn = seen.numbers('[data-card="difference"] td.bars')
    assert drawn == pytest.approx(apart.column("B − A"))
    assert card(seen, "sides").locator('select[name="view"]').input_value() == "next-token"
    rows = card(seen, "difference").locator("tbody tr")
    word = rows.first.locator("td").first.inner_text()
    rows.first.hover()
    pointed = seen.page.locator('[data-card="a"] tr.pointed, [data-card="b"] tr.pointed')
    assert pointed.count() >= 1
    assert {each.locator("td").first.inner_text() for each in pointed.all()} == {word}


def test_models_with_other_tokenizers_are_compared_over_the_same_characters(visit: Open, home: Path) -> None:
    seen = visit(page="compare", model=CLEAR, text=ONE)
    card(seen, "sides").locator('select[name="model_b"]').select_option(WORDS)
    seen.ready()
    assert "model_b=models%2Fwords" in seen.page.url
    apart = clearstory.inspect(home / CLEAR, ONE, view="surprisal", compare_model=home / WORDS)
    values = [span.value for span in apart.spans if span.value is not None]
    assert seen.numbers('[data-card="difference"] .piece') == pytest.approx(values)
    shades = [
        (each.get_attribute("class") or "").split()[1] for each in card(seen, "difference").locator(".piece").all()
    ]
    assert shades == [apart.color_class(span) for span in apart.spans if span.value is not None]
    # A piece of B is several of A's: pointing at it points at the first of those.
    card(seen, "b").locator(".piece").nth(1).hover()
    assert card(seen, "a").locator(".piece.pointed").count() == 1


def test_two_checkpoints_and_two_runs(visit: Open, home: Path) -> None:
    seen = visit(page="compare", model=SHORT, text="the cat", view="surprisal")
    assert "Both sides are the same" in card(seen, "sides").inner_text()
    assert card(seen, "curves").is_hidden()
    slider = card(seen, "sides").locator('input[name="step_b"]')
    slider.fill("0")
    seen.ready()
    first = home / SHORT / "checkpoints" / "step-000000"
    apart = clearstory.inspect(home / SHORT, "the cat", view="surprisal", compare_model=first)
    assert seen.numbers('[data-card="difference"] .piece') == pytest.approx([span.value for span in apart.spans])
    card(seen, "sides").locator("button", has_text="Swap").click()
    seen.ready()
    assert seen.numbers('[data-card="difference"] .piece') == pytest.approx(
        [-(span.value or 0) for span in apart.spans]
    )
    card(seen, "sides").locator("button", has_text="Reset B to A").click()
    seen.ready()
    card(seen, "sides").locator('select[name="model_b"]').select_option("runs/again")
    seen.ready()
    curves = card(seen, "curves")
    assert curves.locator(".legend span:not(.swatch)").count() == 2
    assert curves.locator("polyline").count() == 2


def test_a_missing_difference_has_a_reason(visit: Open) -> None:
    seen = visit(page="compare", model=CLEAR, text="the cat", text_b="a dog", view="logit-lens")
    assert "A has 7 columns and B has 5" in card(seen, "difference").locator(".hint").inner_text()
    assert card(seen, "a").locator("svg.grid").count() == card(seen, "b").locator("svg.grid").count() == 1
    box = card(seen, "sides").locator('textarea[name="text_b"]')
    box.fill("the cat " * 9)
    box.press("Enter")
    seen.ready()
    assert "context holds 24" in card(seen, "b").locator(".hint").inner_text()
    assert "side B failed" in card(seen, "difference").locator(".hint").inner_text()
    assert card(seen, "a").locator("svg.grid").count() == 1


# ---- context


def test_a_word_is_compared_layer_by_layer(visit: Open, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = visit(page="contextual-embeddings", model=WORDS, text=ONE, text_b=OTHER)
    opened = clearstory.open(home / WORDS)
    result = compare_contexts(opened.model, opened.tokenizer, ONE, other_text=OTHER, word="model")
    rows = '[data-card="layers"] tbody tr'
    assert seen.numbers(rows, "data-centred") == pytest.approx([row["centred"] for row in result["layers"]], abs=1e-5)
    assert seen.numbers(rows, "data-cosine") == pytest.approx([row["cosine"] for row in result["layers"]], abs=1e-5)
    near, moved = card(seen, "nearest").locator("[data-layer]"), card(seen, "heads").locator("[data-layer]")
    assert near.get_attribute("data-layer") == result["least_similar"]
    # A click keeps a layer, pointing at another shows that one for as long.
    seen.page.locator(f'{rows}[data-layer="0"]').click()
    seen.ready()
    assert "context_layer=0" in seen.page.url
    drawn = seen.numbers('[data-card="heads"] td.bars')
    assert drawn == pytest.approx([row[4] for row in result["heads"]["0"]["rows"]], rel=1e-4)
    cosines = [row[1] for table in result["nearest"]["0"] for row in table["rows"]]
    assert seen.numbers('[data-card="nearest"] td.bars') == pytest.approx(cosines, abs=1e-5)
    seen.page.locator(f'{rows}[data-layer="1"]').hover()
    assert moved.get_attribute("data-layer") == "1"
    assert card(seen, "trajectories").locator(".point.on").count() == 2
    seen.page.mouse.move(0, 0)
    assert moved.get_attribute("data-layer") == "0"
    table = run(copied(seen, "nearest") + "view = view[0]", home, monkeypatch)
    assert table["title"] == "Nearest words in context after layer 0, in the first text"
    walk = run(copied(seen, "words"), home, monkeypatch)
    assert walk.panels[0].to_json() == result["similarity"]


def test_a_click_on_a_token_selects_its_word(visit: Open) -> None:
    seen = visit(page="contextual-embeddings", model=WORDS, text=ONE, text_b=OTHER)
    chips = seen.page.locator("#page .chips")
    marked = '.chip[aria-selected="true"]'
    assert [each.locator(marked).inner_text() for each in chips.all()] == ["model", "model"]
    chips.nth(1).locator(".chip", has_text="fashion").click()
    seen.ready()
    assert "‘model’ in “a model of the world” and ‘fashion’" in card(seen, "words").locator("h2").inner_text()
    assert "query_b=" in seen.page.url
    chips.nth(0).locator(".chip", has_text="a").first.click()
    seen.ready()
    assert "‘a’ in" in card(seen, "words").locator("h2").inner_text()
    box = seen.page.locator('#page textarea[name="text_b"]')
    box.fill("no such thing")
    box.press("Enter")
    seen.ready()
    assert "query_b" not in seen.page.url
    assert "and ‘thing’ in" in card(seen, "words").locator("h2").inner_text()


def test_the_first_visit_shows_an_example(visit: Open) -> None:
    seen = visit(page="contextual-embeddings", model=WORDS)
    assert "a machine learning model" in seen.page.locator("#text").input_value()
    assert "‘model’ in “a machine learning model”" in card(seen, "words").locator("h2").inner_text()
    seen.page.locator("#page button", has_text="Use an example sentence").click()
    seen.ready()
    assert seen.page.locator('#page textarea[name="text_b"]').input_value() == EXAMPLE_SENTENCES[0]
    seen.open(page="contextual-embeddings", model=WORDS, text="a zebra")
    assert "no example sentence contains ‘zebra’" in card(seen, "words").locator(".hint").inner_text()
    assert card(seen, "layers").is_hidden()
    # A card may be drawn again after the page is ready; that must end too.
    seen.page.wait_for_function("""() => !document.querySelector('.card[data-state="busy"]')""")


@pytest.mark.parametrize("page", ["compare", "contextual-embeddings"])
def test_neither_page_is_wider_than_a_narrow_window(visit: Open, page: str) -> None:
    text = " ".join(6 * [ONE]) if page == "compare" else ONE
    seen = visit(width=420, page=page, model=WORDS, text=text, text_b=OTHER)
    assert seen.page.evaluate("() => document.documentElement.scrollWidth") <= 420


@pytest.mark.skipif(not SCREENSHOTS, reason="name a folder in CLEARSTORY_SCREENSHOTS to have pictures of both pages")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1280, 3840])
def test_pictures_of_both_pages(visit: Open, width: int, scheme: str) -> None:
    for page in ("compare", "contextual-embeddings"):
        visit(width, scheme, page=page, model=WORDS, text=ONE, text_b=OTHER).shot(f"{page}-{width}-{scheme}")
