"""The frame of every page: the bar that stays in sight, the rail, headings and titles, the film, one selection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from browsing import Open, Visit, needs_browser
from studio_home import fitted, make

from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.hmm.config import HMMConfig
from clearstory.models.transformer.presets import BERT_TINY
from clearstory.studio.model_facts import list_checkpoints
from clearstory.text.train_tokenizer import train_tokenizer
from trained import words

needs_browser()

RUN, TEXT = "runs/short", "the cat sat on"
ALWAYS = {"home", "tokens", "architecture", "all-views", "train", "compare", "serve"}
RAILS = {
    "models/clear": {"sentence", "embeddings", "contextual-embeddings", "attention", "residual-stream", "next-token"}
    | {"interventions", "generate"},
    "models/bert": {"embeddings", "contextual-embeddings", "attention", "residual-stream", "interventions", "families"},
    "models/lstm": {"embeddings", "contextual-embeddings", "residual-stream", "next-token", "families", "generate"},
    "models/hmm": {"residual-stream", "next-token", "families", "generate"},
    "models/ngram": {"residual-stream", "next-token", "families", "generate"},
}
FAMILY_PAGES = {
    "models/bert": ("Masked words", "Which word belongs in the gap?"),
    "models/lstm": ("Memory", "What does it keep, and what does it forget?"),
    "models/hmm": ("States", "Which states does it pass through?"),
    "models/ngram": ("Counts", "How often was this seen?"),
}
QUESTIONS = {
    "home": "Which models are here?",
    "tokens": "How is the text cut?",
    "embeddings": "Which words lie near?",
    "contextual-embeddings": "What does this word mean here?",
    "attention": "Which words does each head read?",
    "residual-stream": "How does the prediction form?",
    "next-token": "What comes next, and why this and not that?",
    "interventions": "What if?",
    "generate": "How does it write?",
    "train": "Is it learning?",
    "compare": "What is different?",
    "serve": "How do other programs use it?",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The studio's folder with an encoder and a hidden Markov model in it."""
    root = make(tmp_path_factory.mktemp("frame"))
    characters, pieces = train_tokenizer("characters", [words()]), train_tokenizer("wordpiece:30", [words()])
    small = {"width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24, "context": 64}
    encoder = fitted(replace(BERT_TINY, **small), pieces.vocab)
    save_model(root / "models" / "bert", encoder, pieces, ModelCard())
    states = build(HMMConfig(vocab=characters.vocab, states=4), seed=1)
    save_model(root / "models" / "hmm", states, characters, ModelCard())
    return root


def rail(seen: Visit) -> set[str]:
    """The pages in the rail."""
    return {str(each.get_attribute("data-page")) for each in seen.page.locator("#rail a:visible").all()}


@pytest.mark.parametrize("model", RAILS)
def test_the_rail_has_what_the_family_can_show(visit: Open, model: str) -> None:
    seen = visit(page="tokens", model=model, text=TEXT)
    shown = rail(seen)
    assert shown - {"families"} == (RAILS[model] | ALWAYS) - {"families"}
    if model in FAMILY_PAGES:
        name, question = FAMILY_PAGES[model]
        assert seen.page.locator('#rail a[data-page="families"]').inner_text() == name
        assert seen.choose("families").page.locator("h1").inner_text() == question
        assert seen.page.title().startswith(f"{name} · {model.rpartition('/')[2]} · ")
    groups = seen.page.locator("#rail h2:visible").all_inner_texts()
    assert groups == [
        name for name in ("Look", "Write", "Train", "Compare", "Serve") if name != "Write" or "generate" in shown
    ]


def test_a_page_is_a_question_and_the_title_names_page_and_model(visit: Open) -> None:
    seen = visit(page="home", model=RUN, text=TEXT)
    for page, question in QUESTIONS.items():
        seen.choose(page)
        assert seen.page.locator("h1").all_inner_texts() == [question]
        name = seen.page.locator('#rail a[aria-current="page"]').inner_text()
        assert seen.page.title() == f"{name} · short · Clearstory"
    seen.page.go_back()
    assert seen.ready().page.locator("h1").inner_text() == QUESTIONS["compare"]
    seen.page.go_forward()
    assert seen.ready().page.locator("h1").inner_text() == QUESTIONS["serve"]


def test_one_selection_is_on_every_page_and_in_the_address(visit: Open) -> None:
    seen = visit(page="attention", model="models/clear", text=TEXT, layer=1, head=2)
    seen.page.locator("#chips .chip").nth(4).click()
    for page in ("next-token", "residual-stream", "generate", "attention"):
        seen.choose(page)
        assert all(part in seen.page.url for part in ("layer=1", "head=2", "query=4"))
        assert seen.page.locator('#chips .chip[aria-selected="true"]').get_attribute("data-position") == "4"
        assert seen.page.locator("#words").inner_text().startswith("Layer 1, head 2, query c (4), pinned")
    body = seen.page.locator('[data-card="head-pattern"] .card-body')
    assert (body.get_attribute("data-layer"), body.get_attribute("data-head")) == ("1", "2")
    seen.page.go_back()
    assert "layer=1&head=2" in seen.ready().page.url


@pytest.mark.parametrize("width", [1280, 420])
def test_the_bar_stays_in_sight_and_pages_open_at_their_top(visit: Open, width: int) -> None:
    seen = visit(page="attention", model="models/clear", text=TEXT, width=width)
    for page in ("next-token", "attention"):
        seen.page.evaluate("() => scrollTo(0, 500)")
        seen.page.wait_for_function("() => scrollY > 100")
        for part in ("#model-name", "#text", "#chips .chip >> nth=0"):
            box = seen.page.locator(part).bounding_box()
            assert box
            assert 0 <= box["y"] < 140
        seen.choose(page)
        assert seen.page.evaluate("() => scrollY") == 0
        top, heading = (seen.page.locator(part).bounding_box() for part in ("#top", "h1"))
        assert top
        assert heading
        assert top["y"] == 0
        assert top["height"] < 140
        assert heading["y"] >= top["height"]


def test_the_rail_is_folded_and_stays_so(visit: Open) -> None:
    seen = visit(page="tokens", model="models/clear", text=TEXT)
    button = seen.page.locator("#rail-button")
    button.click()
    assert seen.page.locator("#rail").is_hidden()
    assert button.get_attribute("aria-expanded") == "false"
    seen.open(page="next-token", model="models/clear", text=TEXT)
    assert seen.page.locator("#rail").is_hidden()
    button.focus()
    seen.page.keyboard.press("Enter")
    assert seen.page.locator("#rail").is_visible()


def test_on_a_small_window_and_on_one_sentence_the_rail_is_a_menu(visit: Open) -> None:
    for width, page in ((420, "tokens"), (1280, "sentence")):
        seen = visit(page=page, model="models/clear", text=TEXT, width=width)
        assert seen.page.locator("#rail").is_hidden()
        seen.page.locator("#rail-button").click()
        assert seen.page.locator("#rail").is_visible()
        assert seen.page.evaluate("() => document.documentElement.scrollWidth") <= width
        seen.page.locator("#rail a").first.focus()
        seen.page.keyboard.press("Escape")
        assert seen.page.locator("#rail").is_hidden()
        assert seen.choose("next-token").page.locator("h1").inner_text() == QUESTIONS["next-token"]


def test_the_film_has_a_frame_for_each_checkpoint(visit: Open, home: Path) -> None:
    steps = [step for step, _ in list_checkpoints(home / RUN)]
    seen = visit(page="next-token", model=RUN, text=TEXT, step=steps[1])
    frames = seen.page.locator("#frames > i")
    assert frames.count() == len(steps) + 1  # and the best model
    assert [index for index, each in enumerate(frames.all()) if each.get_attribute("class") == "now"] == [1]
    frames.nth(2).click(force=True)
    assert f"step={steps[2]}" in seen.ready().page.url
    frames.last.click(force=True)
    assert "step=" not in seen.ready().page.url
    seen.open(page="next-token", model="models/clear", text=TEXT)
    assert seen.page.locator(".film").inner_text().strip() == "published weights"
    assert frames.count() <= 1


def test_many_tokens_are_one_line_until_all_are_asked_for(visit: Open) -> None:
    seen = visit(page="tokens", model="models/clear", text=TEXT)
    button = seen.page.locator("#chips-all")
    assert button.is_hidden()
    seen.open(page="tokens", model="models/clear", text="the cat sat on the mat. " * 8, query=150)
    height = "() => document.getElementById('chips').offsetHeight"
    one = seen.page.evaluate(height)
    assert one < 45
    line = "() => document.getElementById('text').offsetHeight"
    assert seen.page.evaluate(line) < 45
    seen.page.locator("#text").focus()  # while it is edited, the whole text is there
    assert seen.page.evaluate(line) > 45
    seen.page.locator("h1").click()
    assert seen.page.locator('#chips .chip[aria-selected="true"]').is_visible()
    assert seen.page.evaluate("() => document.getElementById('chips').scrollLeft") > 500  # the pinned one is in sight
    button.click()
    assert seen.page.evaluate(height) > 2 * one
    assert button.get_attribute("aria-pressed") == "true"


def test_settings_are_behind_a_button_with_plain_labels(visit: Open) -> None:
    seen = visit(page="embeddings", model="models/clear", text=TEXT)
    box = seen.page.locator('[data-card="neighbours"] [name="max_token_id"]')
    assert not box.is_visible()
    seen.settings("neighbours")
    assert box.is_visible()
    assert "Frequent tokens only" in seen.page.locator('[data-card="neighbours"] .options').inner_text()
    for label in seen.page.locator(".options label").all_inner_texts():
        assert "_" not in label


def test_the_server_page_gives_lines_to_copy(visit: Open) -> None:
    seen = visit(page="serve", model="models/clear", text="it's a 'cat'")
    assert "clearstory serve model=models/clear" in seen.page.locator("#page").inner_text()
    seen.page.get_by_role("button", name="Copy").nth(1).click()
    line = seen.page.evaluate("() => navigator.clipboard.readText()")
    assert line.startswith("curl http://127.0.0.1:8000/v1/completions ")
    assert "it'\\''s a '\\''cat'\\''" in line


def test_a_browser_that_keeps_nothing_has_all_pages(visit: Open) -> None:
    seen = visit(page="home")
    blocked = "get() { throw new DOMException('blocked', 'SecurityError'); }"
    seen.page.context.add_init_script(f"Object.defineProperty(window, 'localStorage', {{ {blocked} }})")
    seen.open(page="attention", model="models/clear", text="the cat")
    assert seen.page.locator("main h1").inner_text() == "Which words does each head read?"
    seen.page.locator("#rail-button").click()
    assert seen.page.locator("#rail").is_hidden()
    seen.page.locator("#theme").click()
    assert seen.page.locator("html").get_attribute("data-theme") == "light"
