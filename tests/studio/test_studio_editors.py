"""Interactive pages: combined heads, edited weights, checkpoints; their values equal the library's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import Open, Visit, needs_browser
from studio_home import TEXT

import clearstory
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.lens.hooks.apply_interventions import pattern_with_interventions, run_interventions
from clearstory.lens.hooks.attention_sites import attention_site, attention_weights
from clearstory.lens.hooks.interventions import parse_intervention
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.probes.projection import fit_plane, project_on
from clearstory.models.transformer.presets import T5_SMALL
from clearstory.studio.model_facts import list_checkpoints
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, shaken
from trained import words

needs_browser()

CLEAR, RUN = "models/clear", "runs/short"
SMALL: dict[str, Any] = {
    "width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24, "context": 24,
}  # fmt: skip


@pytest.fixture(scope="module")
def home(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The studio's folder, an encoder-decoder in it, and a model of longer texts."""
    root = Path(shutil.copytree(made, tmp_path_factory.mktemp("hands") / "home"))
    tokenizer = train_tokenizer("characters", [words()])
    config = replace(T5_SMALL, **SMALL, vocab=tokenizer.vocab, decoder_start_token_id=0)
    save_model(root / "models" / "t5", shaken(config).float(), tokenizer, ModelCard())
    long = replace(TINY_CLEAR, vocab=tokenizer.vocab, context=96)
    save_model(root / "models" / "long", shaken(long).float(), tokenizer, ModelCard())
    return root


@pytest.fixture(scope="module")
def window() -> Mapping[str, Any]:
    """Wide, and nothing moves by itself."""
    return {"width": 1400, "scheme": "light", "motion": "reduce"}


def copied(seen: Visit, card: str) -> str:
    """A card's Python."""
    seen.page.locator(f'[data-card="{card}"] .tool', has_text="Copy Python").click()
    seen.page.locator(f'[data-card="{card}"] .tool', has_text="Copied").wait_for()
    return str(seen.page.evaluate("() => navigator.clipboard.readText()"))


def ran(code: str) -> dict[str, Any]:
    """What a card's Python leaves, run in the studio's folder."""
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def readings(seen: Visit, card: str) -> list[list[float]]:
    """The first table behind a card's Numbers."""
    tables = seen.page.locator(f'[data-card="{card}"] .numbers table')
    if not tables.count():
        seen.page.locator(f'[data-card="{card}"] .tool', has_text="Numbers").click()
    rows = tables.first.locator("tbody tr").all()
    return [[float(str(each.get_attribute("data-value"))) for each in row.locator("td.n").all()] for row in rows]


def test_several_heads_are_combined(visit: Open, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    seen = visit(page="attention", model=CLEAR, text=TEXT, layer=0, head=1)
    tiles = seen.page.locator('[data-card="all-heads"] .tile-grid')
    tiles.focus()
    seen.page.keyboard.press("ArrowRight")
    seen.page.keyboard.press("Shift+Enter")
    seen.ready()
    assert "heads=0.1%3B0.2" in seen.page.url
    seen.page.locator('[data-head="0.2"] input').fill("3")
    seen.page.keyboard.press("Enter")
    seen.ready()
    view = clearstory.inspect(CLEAR, TEXT, view="combined-heads", heads=("0.1", "0.2 x3"))
    assert readings(seen, "head-pattern") == [pytest.approx(row, abs=1e-6) for row in view.values]
    assert seen.page.locator('[data-card="head-pattern"] .caption').inner_text() == view.caption
    assert ran(copied(seen, "head-pattern"))["view"] == view
    seen.page.locator('[name="reduce"]').select_option("max")
    seen.ready()
    largest = clearstory.inspect(CLEAR, TEXT, view="combined-heads", heads=("0.1", "0.2"), reduce="max")
    assert readings(seen, "head-pattern") == [pytest.approx(row, abs=1e-6) for row in largest.values]
    seen.page.reload()  # a link opens it again
    seen.ready()
    assert seen.page.locator('[data-card="head-pattern"] .card-body').get_attribute("data-heads") == "0.1;0.2"
    seen.page.locator("button", has_text="Single head").click()
    assert seen.ready().page.locator('[data-card="head-pattern"] .card-body').get_attribute("data-head") == "1"


def test_a_column_label_lists_the_largest_rows(visit: Open, home: Path) -> None:
    seen = visit(page="attention", model=CLEAR, text=TEXT, layer=1, head=0)
    view = clearstory.inspect(home / CLEAR, TEXT, view="attention", layer=1, head=0)
    body = seen.page.locator('[data-card="head-pattern"] .card-body')
    body.locator(".grid-field").focus()
    for key in ("ArrowDown", "ArrowUp", "ArrowRight", "Enter"):
        seen.page.keyboard.press(key)
    column = [row[1] for row in view.values]
    best = sorted(range(len(column)), key=lambda row: -column[row])[:5]
    shown_values = dict(each.split(":") for each in str(body.get_attribute("data-readers")).split())
    assert list(map(int, shown_values)) == best
    assert [float(each) for each in shown_values.values()] == pytest.approx([column[row] for row in best], abs=1e-6)
    assert "is attended to by" in body.locator(".readout").inner_text()
    seen.page.keyboard.press("Escape")
    assert body.get_attribute("data-column") == ""


def test_the_strongest_pairs_exclude_the_hidden_column(visit: Open, home: Path) -> None:
    text = "the king of the hill is the man who sat at the top of it all the day"
    tokenizer = clearstory.open(home / "models/t5").tokenizer
    assert len(tokenizer.encode(text)) > 48
    seen = visit(page="attention", model="models/long", text=text, layer=0, head=0, **{"hide-first": 1})
    view = clearstory.inspect(home / "models/long", text, view="attention", layer=0, head=0)
    best = sorted((value for row in view.values for value in row[1:]), reverse=True)[:20]
    assert [row[0] for row in readings(seen, "pairs")] == pytest.approx(best, abs=1e-6)
    seen.page.locator('[name="hide-first"]').click()
    every = sorted((value for row in view.values for value in row), reverse=True)[:20]
    assert [row[0] for row in readings(seen.ready(), "pairs")] == pytest.approx(every, abs=1e-6)


def test_the_attention_part_is_selected(visit: Open, home: Path) -> None:
    seen = visit(page="attention", model="models/t5", text="the cat", target="a dog")
    seen.page.locator('.parts input[value="cross"]').click()
    seen.ready()
    view = clearstory.inspect(home / "models/t5", "the cat", view="attention", part="cross", target="a dog")
    assert readings(seen, "head-pattern") == [pytest.approx(row, abs=1e-6) for row in view.values]
    assert "part=cross" in seen.page.url
    assert "cross-attention" in seen.page.locator('[data-card="head"] h2').inner_text()


def test_a_weight_is_dragged_and_changed_with_keys(visit: Open, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    seen = visit(page="interventions", model=CLEAR, text=TEXT, layer=0, head=1)
    opened = clearstory.open(CLEAR)
    read = encode_passage(opened.model, opened.tokenizer, TEXT)
    page, at = seen.page, attention_site(opened.model, 0)
    was = float(attention_weights(opened.model, read, at)[1, 2, 0])
    dot = page.locator('[data-card="head-editor"] .cell.turns').nth(2)  # row 1 has two dots; then row 2, column 0
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    way = 28 if was < 0.5 else -28  # 140 pixels are all of it
    page.mouse.move(x + way / 2, y)
    page.mouse.move(x + way, y, steps=2)
    page.mouse.up()
    seen.ready()
    [edit] = [each.get_attribute("data-intervention") for each in page.locator(".interventions li").all()]
    assert edit == f"cell 0.1 2 0 {round(was + way / 140, 2):g}"
    after = pattern_with_interventions(opened.model, opened.tokenizer, read, at, [parse_intervention(edit)])[1]
    assert readings(seen, "head-editor") == [pytest.approx(row, abs=1e-6) for row in after.tolist()]
    outcome = run_interventions(opened.model, opened.tokenizer, read, [parse_intervention(edit)])
    shown_values = {
        each.get_attribute("data-token"): (
            float(str(each.get_attribute("data-before"))),
            float(str(each.get_attribute("data-after"))),
        )
        for each in page.locator('[data-card="interventions"] .pair').all()
    }
    want = {
        opened.tokenizer.display_token(id): pytest.approx((a, b), abs=1e-6) for id, a, b in outcome.largest_changes(12)
    }
    assert shown_values == want
    assert f"KL {outcome.kl:.3g} bits" in page.locator('[data-card="interventions"] .caption').inner_text()
    # With the keys: the same dot, taken, turned down by a twentieth, let go.
    page.locator('[data-card="head-editor"] .weight-editor').focus()
    for key in ("Enter", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    seen.ready()
    [turned] = [each.get_attribute("data-intervention") for each in page.locator(".interventions li").all()]
    assert float(str(turned).split()[-1]) == pytest.approx(max(0, float(edit.split()[-1]) - 0.05), abs=1e-9)
    names = ran(copied(seen, "components"))
    assert [str(each) for each in names["interventions"]] == [turned]
    assert torch.equal(
        ran(copied(seen, "head-editor"))["weights"],
        pattern_with_interventions(opened.model, opened.tokenizer, read, at, [parse_intervention(str(turned))])[1],
    )
    page.locator('[data-card="head-editor"] .weight-editor').focus()
    page.keyboard.press("Delete")
    assert seen.ready().page.locator(".interventions li").count() == 0
    assert "There are no interventions" in page.locator('[data-card="interventions"] .card-body').inner_text()


def test_scaling_steering_and_patching(visit: Open, home: Path) -> None:
    seen = visit(page="interventions", model=CLEAR, text=TEXT, layer=1, head=2)
    page = seen.page
    page.locator('[data-card="head-editor"] [name="scale"]').fill("0.5")
    seen.ready()
    page.locator('[name="toward"]').fill("the dogs")
    page.locator('[name="away"]').fill('a "mat"')
    page.locator('[name="steer-layer"]').fill("0")
    page.locator(".steering button").click()
    seen.ready()
    page.locator('.interventions [name="strength"]').nth(1).fill("2.5")
    seen.ready()
    card = page.locator('[data-card="activation-patching"]')
    card.locator('[name="other_text"]').fill("the dog sat on")
    seen.settings("activation-patching")
    card.locator('[name="words"]').fill("t; a")  # at once: neither is lost
    card.locator("button", has_text="Compute").click()
    card.locator(".grid-field").wait_for()
    card.locator(".grid-field").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    seen.ready()
    result = [str(each.get_attribute("data-intervention")) for each in page.locator(".interventions li").all()]
    assert result == ["head 1.2 x0.5", r'steer 0 2.5 all "the dogs" "a \"mat\""', 'patch 0 2 "the dog sat on"']
    assert parse_intervention(result[1]).away == 'a "mat"'  # type: ignore[union-attr]
    view = clearstory.inspect(home / CLEAR, TEXT, view="interventions", edit=tuple(result))
    shown = [cell for row in readings(seen, "interventions") for cell in row]
    assert shown == pytest.approx([cell for row in view.rows for cell in row[1:]])
    page.locator('[data-card="components"] .part[data-intervention="head 1.2 off"]').click()  # off in place of half
    seen.ready()
    assert page.locator(".interventions li").nth(2).get_attribute("data-intervention") == "head 1.2 off"
    assert page.locator('.interventions [data-intervention="head 1.2 x0.5"]').count() == 0
    page.locator('[data-card="components"] button', has_text=re.compile("^Remove all$")).click()
    assert seen.ready().page.locator("#page .page").get_attribute("data-interventions") == "0"


def test_checkpoints_are_played_on_fixed_axes(visit: Open, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    first = "step-000000"
    seen = visit(page="embeddings", model=RUN, text="t h e", step=0, top=2, word="t")
    page = seen.page
    last, now = clearstory.open(RUN), clearstory.open(f"{RUN}/checkpoints/{first}")
    plane = fit_plane(last.model, last.tokenizer, "t h e", top=2)

    def held(model: Any) -> None:
        view = project_on(model.model, model.tokenizer, plane)
        for axis in ("x", "y"):
            assert seen.numbers('[data-card="projection"] [data-point]', f"data-{axis}") == pytest.approx(
                [getattr(point, axis) for point in view.points], abs=1e-6
            )
        assert page.locator('[data-card="projection"] .caption').inner_text() == view.caption

    held(now)
    names = ran(copied(seen, "projection"))
    assert names["view"] == project_on(now.model, now.tokenizer, plane)
    page.evaluate(
        """() => {
          window.seen = [];
          const words = document.getElementById("step-words");
          new MutationObserver(() => window.seen.push(words.textContent)).observe(words, { childList: true });
        }"""
    )
    page.locator("#step-play").click()
    page.locator('#step-play[aria-pressed="true"]').wait_for()
    page.locator('#step-play[aria-pressed="false"]').wait_for()  # it stops by itself at the end
    steps = page.evaluate("() => [...new Set(window.seen)]")
    kept = [step for step, _ in list_checkpoints(home / RUN)][1:]
    assert steps == [*(f"step {step}" for step in kept), "best model"]
    assert "step=" not in page.url
    held(last)
    page.locator("#step").focus()
    page.keyboard.press("ArrowLeft")
    assert seen.ready().page.locator("#step-words").inner_text() == f"step {kept[-1]}"
    seen.open(page="attention", model=CLEAR, text=TEXT)
    assert page.locator("#step-words").inner_text() == "published weights"
    assert page.locator("#step").is_hidden()
    assert page.locator("#step-play").is_hidden()


def test_nearest_neighbours_are_shown_with_their_vectors(
    visit: Open, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    seen = visit(page="embeddings", model=CLEAR, text=TEXT, word="t", remove_components=1)
    page = seen.page
    view = clearstory.inspect(CLEAR, "t", view="neighbours", top=12, remove_components=1)
    assert seen.numbers('[data-card="neighbours"] .near', "data-id") == view.column("id")
    assert seen.numbers('[data-card="neighbours"] .near', "data-cosine") == pytest.approx(
        view.column("cosine"), abs=1e-6
    )
    assert ran(copied(seen, "neighbours"))["view"] == view
    seen.settings("neighbours")
    page.locator('[data-card="neighbours"] [name="max_token_id"]').fill("9")
    page.locator('[data-card="neighbours"] .near').nth(9).wait_for(state="detached")
    few = clearstory.inspect(CLEAR, "t", view="neighbours", top=12, remove_components=1, max_token_id=9)
    assert seen.ready().numbers('[data-card="neighbours"] .near', "data-id") == few.column("id")
    rows = ran(copied(seen, "embedding-rows"))["rows"]
    strip = page.locator('[data-card="embedding-rows"] .card-body')
    strip.locator(".strip").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    assert float(str(strip.get_attribute("data-value"))) == pytest.approx(float(rows[1, 1]), rel=1e-6)
    page.locator('[name="axis_from"]').fill("t")
    page.locator('[name="axis_to"]').fill("a")
    page.locator('[data-card="semantic-axis"] svg.map').wait_for()
    ends = clearstory.inspect(CLEAR, TEXT, view="semantic-axis", words=("t", "a"))
    assert seen.ready().numbers('[data-card="semantic-axis"] [data-point]', "data-x") == pytest.approx(
        [point.x for point in ends.points], abs=1e-6
    )


def test_the_logit_lens_is_computed_for_visible_columns(visit: Open, home: Path) -> None:
    seen = visit(width=700, page="residual-stream", model=CLEAR, text=TEXT)
    body = seen.page.locator('[data-card="logit-lens"] .card-body')
    columns = int(str(body.get_attribute("data-columns")))
    count = len(encode_passage(*(lambda o: (o.model, o.tokenizer))(clearstory.open(home / CLEAR)), TEXT).ids)
    assert columns < count
    whole = clearstory.inspect(home / CLEAR, TEXT, view="logit-lens")
    assert readings(seen, "logit-lens") == [pytest.approx(row[count - columns :], abs=1e-6) for row in whole.values]
    seen.page.locator('[name="first-token"]').fill("1")
    assert readings(seen.ready(), "logit-lens") == [
        pytest.approx(row[1 : 1 + columns], abs=1e-6) for row in whole.values
    ]


def test_nothing_is_wider_than_a_narrow_window(visit: Open) -> None:
    state = {"model": RUN, "text": "the cat", "heads": "0.0;0.1", "interventions": "head 0.0 x0.5", "word": "t"}
    seen = visit(width=420, page="attention", **state)
    for page in ("interventions", "embeddings", "residual-stream", None):
        assert seen.page.evaluate("() => document.documentElement.scrollWidth") <= 420
        if page:
            seen.choose(page)
