"""Details of pages: selects say what is shown, hints are hints, outliers do not hide the other dimensions."""

from __future__ import annotations

from browsing import Open, needs_browser

from clearstory.lens.registry import VIEWS

needs_browser()


def test_the_train_page_shows_the_view_that_its_select_says(visit: Open) -> None:
    page = visit(page="train", run="runs/short", model="runs/short").page
    page.locator('.live [data-card="next-token"]').wait_for()
    select = page.locator(".live select").first
    assert select.input_value() == "next-token"
    assert select.locator("option:checked").inner_text() == "Next token"


def test_a_page_without_views_says_why_in_words_and_as_a_hint(visit: Open) -> None:
    page = visit(page="attention", model="models/lstm", text="the cat").page
    reason = page.locator("[data-reason]")
    assert reason.get_attribute("class") == "hint"
    text = reason.inner_text()
    assert "has no attention; use a Transformer" in text
    assert not [name for name in VIEWS if "-" in name and name in text]


def test_types_of_heads_say_what_they_were_measured_on(visit: Open) -> None:
    page = visit(page="attention", model="models/clear", text="the cat").page
    page.locator('[data-card="all-heads"] .caption', has_text="random tokens that are repeated").wait_for()


def test_outliers_do_not_set_the_scale_of_vectors(visit: Open) -> None:
    page = visit(page="home").page
    scale = "async (maxima) => (await import('/static/render/grid_drawing.js')).robustScale(maxima)"
    assert page.evaluate(scale, [1, 1, 2, 1, 1, 1, 1, 1, 100]) == {"max": 2, "outliers": [8]}
    assert page.evaluate(scale, [1, 2, 3, 4, 3, 2, 1, 2, 4]) == {"max": 4, "outliers": []}
    assert page.evaluate(scale, [0, 0, 0, 0, 0, 0, 0, 0, 5]) == {"max": 5, "outliers": []}


def test_the_answer_of_each_step_of_the_tour_is_in_sight(visit: Open) -> None:
    seen = visit(page="next-token", model="models/clear", text="the cat", tour=5)
    seen.page.set_viewport_size({"width": 1280, "height": 720})
    first = seen.page.locator('[data-card="sampling"] .choice').first
    box = first.bounding_box()
    assert box is not None
    assert 0 < box["y"] < 700
    assert first.locator(".piece-name").inner_text() in seen.page.locator(".tour-text").inner_text()
