"""Every page in a browser, served from the wheel: values equal the library's, no requests to other hosts."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import SCREENSHOTS, Open, needs_browser, serving
from studio_home import HOSTILE, TEXT

import clearstory
from clearstory.lens.hooks.passage import encode_passage
from clearstory.studio.model_facts import list_checkpoints

needs_browser()

CLEAR = "models/clear"


def last_logits(made: Path, text: str) -> torch.Tensor:
    """The logits after a text, as the library has them."""
    opened = clearstory.open(made / CLEAR)
    return opened.logits([encode_passage(opened.model, opened.tokenizer, text).ids])[0, -1].double()


def test_home_lists_the_models_with_their_facts(visit: Open, made: Path) -> None:
    page = visit(page="home").page
    tiles = page.locator("[data-model]")
    assert {each.get_attribute("data-model") for each in tiles.all()} == {
        "models/clear", "models/lstm", "models/ngram", "models/hostile", "runs/short",
    }  # fmt: skip
    bits = clearstory.open(made / "runs" / "short").card.bits_per_byte
    assert f"{bits:.4g}" in page.locator('[data-model="runs/short"] dl').inner_text()
    page.locator('[data-model="models/lstm"] button', has_text="Inspect").click()
    page.locator('body[data-page="tokens"]').wait_for()
    assert "model=models%2Flstm" in page.url


def test_tokens_equal_the_tokenizers(visit: Open, made: Path) -> None:
    page = visit(page="tokens", model=CLEAR, text=TEXT).page
    tokenizer = clearstory.open(made / CLEAR).tokenizer
    ids = tokenizer.encode(TEXT)
    rows = page.locator('[data-card="pieces"] tr[data-id]')
    assert [int(each.get_attribute("data-id")) for each in rows.all()] == ids
    assert [each.inner_text() for each in page.locator("#chips .chip").all()] == [
        tokenizer.display_token(id) for id in ids
    ]
    assert page.locator('[data-total="bytes"]').get_attribute("data-value") == str(len(TEXT.encode()))


def test_a_token_is_pinned_and_released(visit: Open) -> None:
    page = visit(page="tokens", model=CLEAR, text=TEXT).page
    chips = page.locator("#chips .chip")
    chips.nth(3).hover()
    assert "Token ␣ (3)" in page.locator("#words").inner_text()
    chips.nth(3).click()
    assert "Query ␣ (3), pinned" in page.locator("#words").inner_text()
    assert "query=3" in page.url
    chips.nth(5).click(modifiers=["Shift"])
    assert "query=3%2C5" in page.url
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.position") == "6"
    page.keyboard.press("Escape")
    assert "query" not in page.url
    chips.nth(2).click()
    page.locator("#text").fill("the dogs")
    page.keyboard.press("Enter")
    page.locator("#chips .chips[data-count='8']").wait_for()
    assert "query" not in page.url  # what was pinned belonged to the old sentence
    page.go_back()
    page.locator(f"#chips .chips[data-count='{len(TEXT)}']").wait_for()


def test_the_next_token_distribution_and_truncation_equal_the_library(visit: Open, made: Path) -> None:
    seen = visit(page="next-token", model=CLEAR, text=TEXT, temperature=0.5, top_k=3)
    logits = last_logits(made, TEXT)
    warm = (logits / 0.5).softmax(-1)
    best = warm.topk(3)
    choices = '[data-card="sampling"] .choice'
    assert seen.numbers(f"{choices}:not(.cut)", "data-id") == best.indices.tolist()
    assert seen.numbers(f"{choices}:not(.cut)", "data-sampling") == pytest.approx(
        (best.values / best.values.sum()).tolist(), rel=1e-4
    )
    assert seen.numbers(choices, "data-probability")[:10] == pytest.approx(warm.topk(10).values.tolist(), rel=1e-4)
    body = seen.page.locator('[data-card="sampling"] .card-body')
    entropy = float(-(warm * warm.log2()).sum())
    assert float(body.get_attribute("data-entropy")) == pytest.approx(entropy, rel=1e-4)
    assert f"Entropy {entropy:.2f} bits" in seen.page.locator('[data-card="sampling"] .caption').inner_text()
    # The slider moves: everything else may come again.
    seen.page.locator('input[name="top_k"]').fill("0")
    seen.page.locator('[data-card="sampling"] .card-body:not([data-kept="3"])').wait_for()
    assert seen.ready().page.locator(f"{choices}.cut").count() == 0


def test_a_card_has_tables_files_and_python(visit: Open, made: Path, tmp_path: Path) -> None:
    seen = visit(page="next-token", model=CLEAR, text=TEXT)
    card = seen.page.locator('[data-card="next-token"]')
    view = clearstory.inspect(made / CLEAR, TEXT)
    drawn = seen.numbers('[data-card="next-token"] td.bars')
    assert drawn == pytest.approx(view.column("probability"), rel=1e-12)
    card.locator("button", has_text="Numbers").click()
    assert seen.numbers('[data-card="next-token"] .numbers tr td:nth-child(3)') == pytest.approx(view.column("logit"))
    for kind in ("SVG", "CSV", "HTML"):
        with seen.page.expect_download() as kept:
            card.locator(".tool", has_text=re.compile(f"^{kind}$")).click()
        file = tmp_path / kept.value.suggested_filename
        kept.value.save_as(file)
        own = tmp_path / f"own.{kind.lower()}"
        clearstory.inspect(made / CLEAR, TEXT, out=own)
        if kind == "CSV":
            lines = [line.split(",") for line in file.read_text().splitlines()]
            assert lines[0] == list(view.columns)
            assert float(lines[1][-1]) == view.rows[0][-1]
        else:
            assert file.read_text() == own.read_text()
    card.locator("button", has_text="Full screen").click()
    assert card.bounding_box()["width"] == 1280
    seen.page.keyboard.press("Escape")
    assert card.bounding_box()["width"] < 1280


def test_copied_python_gives_the_same_numbers(visit: Open, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = visit(page="families", model="models/lstm", text=TEXT, layer=1)
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    seen.page.locator('[data-card="gates"] button', has_text="Copy Python").click()
    seen.page.locator('[data-card="gates"] button', has_text="Copied").wait_for()
    code = seen.page.evaluate("() => navigator.clipboard.readText()")
    monkeypatch.chdir(made)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["view"] == clearstory.inspect(made / "models" / "lstm", TEXT, view="gates", layer=1)


@pytest.mark.parametrize(
    ("text", "how"), [(TEXT, "svg"), ("the cat sat on a mat. dogs bark at night. the cat sat", "canvas")]
)
def test_a_grid_is_read_cell_by_cell_with_the_keyboard(visit: Open, made: Path, text: str, how: str) -> None:
    seen = visit(page="embeddings", model="models/lstm", text=text)
    view = clearstory.inspect(made / "models" / "lstm", text, view="embeddings")
    body = seen.page.locator('[data-card="embeddings"] .card-body')
    assert body.get_attribute("data-backend") == how
    seen.page.locator('[data-card="embeddings"] .grid-field').focus()
    seen.page.keyboard.press("ArrowDown")  # enters
    for row in range(1, 4):
        seen.page.keyboard.press("ArrowDown")
        assert float(body.get_attribute("data-value")) == view.values[row][0]
    seen.page.keyboard.press("ArrowRight")
    assert float(body.get_attribute("data-value")) == view.values[3][1]
    seen.page.keyboard.press("Enter")
    assert "query=3" in seen.page.url
    assert "pinned" in body.locator(".readout").inner_text()
    # The pinned row is a pinned chip, and a link opens it again.
    assert seen.page.locator('#chips .chip[aria-selected="true"]').get_attribute("data-position") == "3"
    seen.page.reload()
    assert seen.ready().page.locator('#chips .chip[aria-selected="true"]').get_attribute("data-position") == "3"


def test_tiles_have_the_head_types_of_the_library(visit: Open, made: Path) -> None:
    seen = visit(page="all-views", model=CLEAR, text=TEXT)
    seen.page.locator('[data-card="heads"]').scroll_into_view_if_needed()
    body = seen.page.locator('[data-card="heads"] .report-body')
    body.locator(".tile-grid").wait_for()
    [tiles, _] = clearstory.inspect(made / CLEAR, TEXT, view="heads").panels
    names = [tile.category for row in tiles.tiles for tile in row]
    counts = {
        each.get_attribute("data-kind"): each.get_attribute("data-count") for each in body.locator(".legend-item").all()
    }
    assert counts == {name: str(names.count(name)) for name in set(names)}
    body.locator(".tile-grid").focus()
    seen.page.keyboard.press("ArrowRight")
    seen.page.keyboard.press("Enter")
    assert body.locator(".readout").inner_text().startswith("Layer 0, head 1")


def test_a_head_is_selected_and_its_weights_read(visit: Open, made: Path) -> None:
    seen = visit(page="attention", model=CLEAR, text=TEXT, layer=0, head=1)
    view = clearstory.inspect(made / CLEAR, TEXT, view="attention", layer=0, head=1)
    body = seen.page.locator('[data-card="head-pattern"] .card-body')
    assert (body.get_attribute("data-layer"), body.get_attribute("data-head")) == ("0", "1")
    body.locator(".grid-field").focus()
    seen.page.keyboard.press("ArrowDown")  # enters
    for row in range(1, 4):
        seen.page.keyboard.press("ArrowDown")
        assert float(body.get_attribute("data-value")) == pytest.approx(view.values[row][0], abs=1e-6)
    seen.page.locator('[data-card="all-heads"] .tile-grid').focus()
    seen.page.keyboard.press("ArrowLeft")
    seen.page.keyboard.press("Enter")
    seen.ready()
    assert "head=0" in seen.page.url
    assert body.get_attribute("data-head") == "0"


def test_a_click_ablates_a_head_and_undo_restores_it(visit: Open, made: Path) -> None:
    seen = visit(page="interventions", model=CLEAR, text=TEXT)
    seen.page.locator('[data-card="components"] .part[data-intervention="head 0.1 off"]').click()
    seen.ready()
    view = clearstory.inspect(made / CLEAR, TEXT, view="interventions", edit=("head 0.1 off",))
    seen.page.locator('[data-card="interventions"] .tool', has_text="Numbers").click()
    shown = seen.numbers('[data-card="interventions"] .numbers td.n')
    assert shown == pytest.approx([cell for row in view.rows for cell in row[1:]])
    assert "interventions=head" in seen.page.url
    seen.page.locator('[data-card="components"] button', has_text=re.compile("^Undo$")).click()
    seen.ready()
    assert seen.page.locator("#page .page").get_attribute("data-interventions") == "0"


def test_every_page_opens_for_every_family(visit: Open) -> None:
    seen = visit(page="home", model=CLEAR, text="the cat")
    pages = [each.get_attribute("data-page") for each in seen.page.locator("#rail a").all()]
    assert pages[:5] == ["home", "sentence", "tokens", "embeddings", "contextual-embeddings"]
    for model in (CLEAR, "models/lstm", "models/ngram"):
        seen.open(page="home", model=model, text="the cat")
        missing = []
        for page in pages:
            link = seen.page.locator(f'#rail a[data-page="{page}"]')
            if link.is_visible() or seen.page.locator("#rail").is_hidden():
                seen.choose(page)
                assert seen.page.locator("main [data-reason]").count() == 0, f"{page} of {model}"
            else:  # a link to it says why
                seen.open(page=page, model=model, text="the cat")
                assert len(seen.page.locator("main [data-reason]").inner_text()) > 30
                missing.append(page)
            assert seen.page.locator("#alarm").is_hidden(), f"{page} of {model}"
            assert seen.page.locator("main h1").inner_text()
            # A card may be drawn again after the page is ready; that must end too.
            seen.page.wait_for_function("""() => !document.querySelector('.card[data-state="busy"]')""")
        assert ("attention" in missing) == (model != CLEAR)
    seen.open(page="families", model="models/ngram", text="the cat")
    assert seen.page.locator('[data-card="backoff"][data-state="drawn"]').count() == 1


def test_text_is_generated_step_by_step_and_branches(visit: Open, made: Path) -> None:
    how = {"max_tokens": 6, "temperature": 0.8}
    wholes = (clearstory.generate(made / CLEAR, TEXT, seed=seed, **how).completions[0] for seed in range(99))
    seed, whole = next((seed, whole) for seed, whole in enumerate(wholes) if whole.finished == "length")
    seen = visit(page="generate", model=CLEAR, text=TEXT)
    page = seen.page
    page.locator('input[name="max-tokens"]').fill("6")
    page.locator('input[name="seed"]').fill(str(seed))
    page.locator(".page button", has_text="Play").click()
    page.locator('[data-card="generated"] .card-body[data-count="6"]').wait_for()
    page.locator(".page button", has_text=re.compile("^Play$")).wait_for()
    pieces = '[data-card="generated"] .piece'
    assert seen.numbers(pieces, "data-id") == list(whole.ids)
    probabilities = torch.tensor(whole.logprobs).exp().tolist()
    assert seen.numbers(pieces, "data-probability") == pytest.approx(probabilities, abs=1e-5)
    assert page.locator('[data-card="generated"] .card-body').get_attribute("data-text") == whole.text
    page.locator("button", has_text="Back").click()
    seen.ready()
    assert page.locator(pieces).count() == 5
    page.locator(pieces).nth(1).click()
    seen.ready()
    others = page.locator('[data-card="alternatives"] .choice:not(.taken) button')
    others.first.click()
    seen.ready()
    assert page.locator(pieces).count() == 2
    assert "forced" in page.locator(pieces).nth(1).get_attribute("class")
    page.locator("button", has_text="Step").click()
    page.locator('[data-card="generated"] .card-body[data-count="3"]').wait_for()


def test_hostile_words_are_text_on_every_page(visit: Open) -> None:
    text = f"the {HOSTILE} cat"
    seen = visit(page="tokens", model="models/hostile", text=text)
    assert HOSTILE in [each.inner_text() for each in seen.page.locator("#chips .chip").all()]
    for page in ("next-token", "generate", "attention", "residual-stream", "all-views", "embeddings"):
        seen.open(page=page, model="models/hostile", text=text)
        assert seen.page.locator("img, script:not([src])").count() == 0
        assert HOSTILE in seen.page.locator("body").inner_text()


def test_a_finished_run_shows_its_metrics(visit: Open, made: Path) -> None:
    seen = visit(page="train", run="runs/short")
    rows = [json.loads(line) for line in (made / "runs" / "short" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "step"]
    page = seen.page
    page.locator('[data-card="training-loss"] button', has_text="Numbers").click()
    assert seen.numbers('[data-card="training-loss"] .numbers tr td:nth-child(3)') == losses
    page.locator('[data-card="learning-curve"] button', has_text="Numbers").click()
    looks = [row["bits_per_byte"] for row in rows if row["kind"] == "evaluation"]
    assert seen.numbers('[data-card="learning-curve"] .numbers tr td:nth-child(3)') == looks
    assert "Finished" in page.locator(".status").inner_text()
    samples = [row["text"] for row in rows if row["kind"] == "sample"]
    shown = [each.text_content() for each in page.locator(".samples blockquote").all()]
    assert shown == samples[::-1][:3]


def test_a_run_is_started_watched_and_stopped_from_the_page(visit: Open, installed: Path, folder: Path) -> None:
    from trained import MODEL, TRAINING

    with serving(installed, folder) as (_, url):
        seen = visit(url=url, page="train")
        page = seen.page
        page.locator('input[name="name"]').fill("mine")
        page.locator('input[name="text"]').fill("words.txt")
        page.locator('input[name="tokenizer"]').fill("characters")
        page.locator('input[name="steps"]').fill("100000")
        page.locator("summary", has_text="All settings").click()
        small = {f"model.{key}": value for key, value in MODEL.items() if key != "name"}
        small |= {f"training.{key}": value for key, value in TRAINING.items()}
        for key, value in {**small, "training.eval_steps": 20}.items():
            field = page.locator(f'.others [name="{key}"]')
            if field.evaluate("each => each.tagName") == "SELECT":
                field.select_option(str(value))
            else:
                field.fill(str(value))
        page.locator("button", has_text=re.compile("^Start$")).first.click()
        page.locator('.page[data-state="running"]').wait_for()
        assert "run=runs%2Fmine" in page.url
        page.locator('[data-card="learning-curve"][data-state="drawn"]').wait_for()
        first = int(page.locator(".page").get_attribute("data-step"))
        page.reload()  # the tab is closed and opened again
        page.locator('.page[data-state="running"]').wait_for()
        page.locator("button", has_text="Stop and save a checkpoint").click()
        page.locator('.page[data-state="stopped"]').wait_for()
        assert int(page.locator(".page").get_attribute("data-step")) >= first
        assert "can be resumed from its newest checkpoint" in page.locator(".status").inner_text()


def test_errors_are_shown_within_five_seconds(visit: Open, installed: Path, folder: Path) -> None:
    with serving(installed, folder) as (process, url):
        seen = visit(url=url, page="next-token", model=CLEAR, text=TEXT)
        page = seen.page
        five = {"timeout": 5000}
        page.locator("#text").fill("the cat " * 20)
        page.keyboard.press("Enter")
        page.locator('[data-card="next-token"] .hint', has_text="context holds 24").wait_for(**five)
        assert page.locator("#chips .chip").count() == 160  # never cut off
        steps = [step for step, _ in list_checkpoints(folder / "runs" / "short")]
        for each in (folder / "runs" / "short" / "checkpoints").glob("*-000004"):
            shutil.rmtree(each)
        page.locator("#model").select_option("runs/short")
        seen.ready()
        page.locator("#step").fill(str(steps.index(4)))  # under the slider, a checkpoint that is gone
        page.locator("#alarm", has_text="there is no folder").wait_for(**five)
        shutil.rmtree(folder / CLEAR)
        page.locator("#model").select_option(CLEAR)
        page.locator("#alarm", has_text="there is no folder").wait_for(**five)
        port = int(url.rstrip("/").rpartition(":")[2])
        process.send_signal(signal.SIGKILL)
        page.locator("#alarm", has_text="does not respond").wait_for(**five)
        process.wait()
        with serving(installed, folder, port):
            page.locator("#alarm", has_text="does not respond").wait_for(state="hidden", timeout=20_000)


def test_a_lost_response_is_requested_again(visit: Open) -> None:
    seen = visit(page="next-token", model=CLEAR, text=TEXT)
    page = seen.page
    page.route("**/api/trace", lambda route: route.abort())  # the server itself is there all the time
    page.locator("#text").fill("the king")
    page.keyboard.press("Enter")
    page.locator("#alarm", has_text="does not respond").wait_for(timeout=5000)
    page.unroute_all(behavior="wait")
    page.locator("#alarm").wait_for(state="hidden")
    seen.ready()
    assert page.locator("#chips .chip").count() == 8
    assert page.locator(".card .hint:not([hidden])").count() == 0


def test_the_page_is_shown_without_javascript(visit: Open, server: str, browser: Any) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(server)
    assert page.locator("#rail a").count() >= 12
    assert page.locator("#text").is_visible()


@pytest.mark.skipif(not SCREENSHOTS, reason="name a folder in CLEARSTORY_SCREENSHOTS to have pictures of every page")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1280, 3840])
def test_pictures_of_every_page(visit: Open, width: int, scheme: str) -> None:
    for page in (
        "home",
        "tokens",
        "next-token",
        "attention",
        "residual-stream",
        "generate",
        "train",
        "families",
        "all-views",
    ):
        model = "models/ngram" if page == "families" else CLEAR
        seen = visit(width=width, scheme=scheme, page=page, model=model, text=TEXT, run="runs/short", query=3)
        if page == "generate":
            seen.page.locator("button", has_text="Step").click()
            seen.page.locator('[data-card="generated"] .card-body[data-count="1"]').wait_for()
        seen.shot(f"{page}-{width}-{scheme}")


@pytest.mark.parametrize("page", ["home", "tokens", "next-token", "attention", "generate", "train", "all-views"])
def test_nothing_is_wider_than_a_narrow_window(visit: Open, page: str) -> None:
    seen = visit(width=420, page=page, model=CLEAR, text=TEXT, run="runs/short")
    assert seen.page.evaluate("() => document.documentElement.scrollWidth") <= 420
