"""Writing, guessing and the tour in a browser: what stands on the page is what the library says."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsing import Open, Visit, needs_browser, serving
from studio_home import TEXT

import clearstory
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.studio.decoding_comparison import compare_decoding
from clearstory.studio.generation_attention import newest_token_attention
from clearstory.studio.guess_game import score_guess
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import shaken
from trained import words

needs_browser()

CLEAR = "models/clear"
SMALL: dict[str, Any] = {
    "width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24, "context": 24,
}  # fmt: skip


@pytest.fixture(scope="module")
def home(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The studio's folder, and an encoder and an encoder-decoder in it."""
    root = Path(shutil.copytree(made, tmp_path_factory.mktemp("write") / "home"))
    characters, pieces = train_tokenizer("characters", [words()]), train_tokenizer("wordpiece:30", [words()])
    two = {
        "t5": (replace(T5_SMALL, **SMALL, vocab=characters.vocab, decoder_start_token_id=0), characters),
        "bert": (replace(BERT_TINY, **SMALL, vocab=pieces.vocab), pieces),
    }
    for name, (config, tokenizer) in two.items():
        save_model(root / "models" / name, shaken(config).float(), tokenizer, ModelCard())
    return root


@pytest.fixture(scope="module")
def clear(home: Path) -> Any:
    return clearstory.open(home / CLEAR)


def copied(seen: Visit, card: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the Python of a card makes, run in the studio's folder."""
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    seen.page.locator(f'[data-card="{card}"] .tool', has_text="Copy Python").click()
    seen.page.locator(f'[data-card="{card}"] .tool', has_text="Copied").wait_for()
    monkeypatch.chdir(home)
    made: dict[str, Any] = {}
    exec(seen.page.evaluate("() => navigator.clipboard.readText()"), made)
    return made


# ---- Generate


def test_decoding_methods_are_shown_side_by_side(
    visit: Open, home: Path, clear: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = visit(page="generate", model=CLEAR, text=TEXT, seed=4, temperature=1.2)
    page = seen.page
    page.locator('input[name="beam"]').fill("2")
    page.locator('input[name="tokens"]').fill("5")
    page.locator("button", has_text="Generate all three").click()
    seen.ready()
    own = compare_decoding(clear.model, clear.tokenizer, TEXT, max_tokens=5, beam=2, seed=4, temperature=1.2)
    for each in own["methods"]:
        way = f'[data-method="{each["name"]}"]'
        assert seen.numbers(f"{way} .piece", "data-id") == each["ids"]
        assert seen.numbers(f"{way} .piece", "data-logprob") == pytest.approx(each["logprobs"], abs=1e-5)
        assert seen.numbers(f'{way} [data-total="score"]') == pytest.approx([each["score"]], abs=1e-5)
    leaves = page.locator('[data-card="decoding-comparison"] .leaf')
    assert leaves.count() == len(own["tree"]["nodes"])
    best = own["tree"]["best"]
    page.locator(f'[data-card="decoding-comparison"] [data-node="{best}"].leaf').click()
    shown_values = page.locator(".leaf-text")
    assert shown_values.get_attribute("data-text") == own["methods"][2]["text"]
    assert float(shown_values.get_attribute("data-score")) == pytest.approx(own["methods"][2]["score"], abs=1e-5)
    page.keyboard.press("ArrowUp")
    assert int(shown_values.get_attribute("data-node")) == own["tree"]["nodes"][best]["parent"]
    assert page.locator('.leaf[aria-pressed="true"]').count() == 1
    page.keyboard.press("Escape")
    assert page.locator('.leaf[aria-pressed="true"]').count() == 0
    assert copied(seen, "decoding-comparison", home, monkeypatch)["result"]["beams"] == own["beams"]
    page.reload()  # the address says how many beams
    assert seen.ready().page.locator('[data-card="decoding-comparison"] .leaf').count() == len(own["tree"]["nodes"])


def test_attention_of_the_newest_token_equals_the_library(
    visit: Open, home: Path, clear: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = visit(page="generate", model=CLEAR, text=TEXT, temperature=0)
    page = seen.page
    for _ in range(3):
        page.locator("button", has_text=re.compile("^Step$")).click()  # none is lost, however fast
    seen.ready()
    pieces = '[data-card="generated"] .piece'
    ids = [int(each) for each in seen.numbers(pieces, "data-id")]
    assert len(ids) == 3
    chips = '[data-card="newest-token-attention"] .chip'
    own = newest_token_attention(clear.model, clear.tokenizer, TEXT, generated=tuple(ids))
    assert seen.numbers(chips, "data-weight") == pytest.approx(own["weights"].tolist(), abs=1e-6)
    page.locator('select[name="attention-head"]').select_option("2")
    page.locator('[data-card="newest-token-attention"] .card-body[data-head="2"]').wait_for()
    page.locator(pieces).nth(1).click()
    seen.ready()
    own = newest_token_attention(clear.model, clear.tokenizer, TEXT, generated=tuple(ids[:2]), layer=1, head=2)
    assert seen.numbers(chips, "data-weight") == pytest.approx(own["weights"].tolist(), abs=1e-6)
    assert own["caption"] in page.locator('[data-card="newest-token-attention"] .caption').inner_text()
    assert "head=2" in page.url
    made = copied(seen, "newest-token-attention", home, monkeypatch)["result"]
    assert made["weights"].tolist() == pytest.approx(own["weights"].tolist())
    seen.open(page="generate", model="models/lstm", text=TEXT)
    page.locator("button", has_text=re.compile("^Step$")).click()
    seen.ready()
    assert page.locator('[data-card="newest-token-attention"]').is_hidden()  # it has no attention


def test_generation_speed_is_measured_on_demand(visit: Open) -> None:
    seen = visit(page="generate", model=CLEAR, text=TEXT)
    card = seen.page.locator('[data-card="generation-speed"]')
    assert card.locator("[data-rate]").count() == 0
    card.locator("button", has_text="Measure").click()
    seen.ready()
    kept, anew = seen.numbers('[data-card="generation-speed"] [data-rate]', "data-rate")
    ratio = float(card.locator(".card-body").get_attribute("data-ratio"))
    assert ratio == pytest.approx(kept / anew)
    assert (
        f"With the KV cache {kept:,.1f} tokens per second, recomputing everything {anew:,.1f}"
        in card.locator(".caption").inner_text()
    )
    card.locator(".tool", has_text="Numbers").click()
    assert seen.numbers('[data-card="generation-speed"] .numbers tr td.n:nth-child(2)')[:2] == [kept, anew]


def test_every_architecture_generates_or_names_the_alternative(visit: Open) -> None:
    seen = visit(page="generate", model="models/bert", text=TEXT)
    result = seen.page.locator("main [data-reason]").inner_text()
    assert "this model (encoder) does not predict the next token" in result
    assert "clearstory fill-mask" in result
    seen.open(page="generate", model="models/t5", text=TEXT, beam=2, tokens=3)
    seen.page.locator("button", has_text=re.compile("^Step$")).click()
    seen.ready()
    assert seen.page.locator('[data-card="generated"] .prompt').inner_text() == f"from {TEXT} → "
    assert seen.page.locator('[data-card="generated"] .piece').count() == 1
    assert seen.page.locator("[data-method]").count() == 3
    seen.page.locator('select[name="attention-part"]').select_option("cross")
    seen.ready()
    assert (
        seen.page.locator('[data-card="newest-token-attention"] .chip').count() == len(TEXT) + 1
    )  # the source, and its end
    assert seen.page.locator('.card[data-state="failed"]').count() == 0


# ---- Next token


def test_the_logit_difference_adds_up(visit: Open, home: Path, clear: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = visit(page="next-token", model=CLEAR, text=TEXT)
    logits = clear.logits([clear.tokenizer.encode(TEXT)])[0, -1].double()
    one, two, three = logits.topk(3).indices.tolist()
    table = '[data-card="logit-attribution"] .numbers > :first-child td.n'

    def holds(a: int, b: int) -> None:
        seen.ready()
        apart = float(logits[a] - logits[b])
        assert seen.numbers("[data-sum]", "data-sum") == pytest.approx([apart], abs=1e-4)
        *parts, together = seen.numbers(table)
        assert together == pytest.approx(apart, abs=1e-4)
        assert math.fsum(parts) == pytest.approx(apart, abs=1e-4)

    numbers = seen.page.locator('[data-card="logit-attribution"] .tool', has_text="Numbers")
    numbers.click()
    holds(one, two)
    seen.page.locator('select[name="token-b"]').select_option(str(three))
    holds(one, three)
    seen.page.locator("button", has_text="Swap").click()
    holds(three, one)
    view = copied(seen, "logit-attribution", home, monkeypatch)["view"]
    assert view.panels[0].rows[-1][1] == pytest.approx(float(logits[three] - logits[one]), abs=1e-4)
    seen.page.reload()  # the two stand in the address
    seen.ready()
    numbers.click()
    holds(three, one)


def test_the_prediction_is_hidden_until_the_guess(visit: Open, clear: Any) -> None:
    seen = visit(page="next-token", model=CLEAR, text="the")
    page, card = seen.page, '[data-card="guess"]'
    page.locator('select[name="guess-text"]').select_option("own")
    page.locator(f"{card} button", has_text="Start").click()
    seen.ready()
    assert page.locator('[data-card="sampling"]').is_hidden()  # the answer is covered
    assert page.locator('[data-card="next-token"]').is_hidden()
    reader = model = 0.0
    for place in (1, 2):
        page.locator(f'{card} input[name="guess"]').fill("e")
        page.locator(f'{card} input[name="confidence"]').fill("0.3")
        page.locator(f"{card} button", has_text=re.compile("^Guess$")).click()
        seen.ready()
        own = score_guess(clear.model, clear.tokenizer, "the", position=place, word="e", confidence=0.3)
        answer = page.locator(f"{card} .answer")
        for name, value in [("rank", own["guess"]["rank"]), ("probability", own["guess"]["probability"]),
                            ("bits", own["guess"]["bits"]), ("reader", own["reader_bits"]),
                            ("model", own["model_bits"])]:  # fmt: skip
            assert float(answer.get_attribute(f"data-{name}")) == pytest.approx(value, rel=1e-5), name
        assert answer.get_attribute("data-correct") == str(own["correct"]).lower()
        reader, model = reader + own["reader_bits"], model + own["model_bits"]
        page.locator(f"{card} button", has_text="Next token").click()
        seen.ready()
    look = page.locator(f"{card} .caption").inner_text()
    assert look.startswith(f"2 tokens, 1 guessed correctly: you needed {reader:.2f} bits")
    assert look.endswith(f"the model's {model:.2f}.")
    assert page.locator('[data-card="sampling"]').is_hidden()
    page.locator(f"{card} .chips .chip").first.click()  # after the whole text
    seen.ready()
    assert "no further token" in page.locator(f"{card} .answer").inner_text()
    assert page.locator('[data-card="sampling"]').is_visible()


def test_an_invalid_guess_leaves_the_game_unchanged(visit: Open) -> None:
    seen = visit(page="next-token", model=CLEAR, text=TEXT)
    card = seen.page.locator('[data-card="guess"]')
    card.locator("button", has_text="Start").click()
    seen.ready()
    assert seen.page.locator('[data-card="sampling"]').is_visible()  # another text: nothing to cover
    card.locator("button", has_text=re.compile("^Guess$")).click()
    seen.ready()
    assert "there is no guess" in card.locator(".hint:visible").inner_text()
    assert card.locator(".card-body").get_attribute("data-state") == "open"
    card.locator("button", has_text="End").click()
    seen.ready()
    assert card.locator(".card-body").get_attribute("data-state") == "idle"


# ---- the tour


def test_the_tour_has_six_steps_with_values_of_the_model(visit: Open, clear: Any) -> None:
    seen = visit(page="home", model=CLEAR, text=TEXT)
    page = seen.page
    page.locator("#tour-button").click()
    seen.ready()
    assert CLEAR in page.locator("#tour").inner_text()
    result: dict[int, str] = {}
    pages = ["tokens", "embeddings", "attention", "attention", "next-token", "generate"]
    for step, name in enumerate(pages, 1):
        page.locator("#tour button.strong").click()
        page.locator(f'#tour[data-shown="{step}"]').wait_for()
        seen.ready()
        assert page.locator("body").get_attribute("data-page") == name
        assert f"tour={step}" in page.url
        result[step] = page.locator(".tour-text").inner_text()
    assert f"Your sentence is {len(clear.tokenizer.encode(TEXT))} of them" in result[1]
    assert f"from a vocabulary of {clear.tokenizer.vocab}" in result[1]
    assert f"{clear.model.config.width} dimensions" in result[2]
    assert "Here are all 8 heads, 2 layers of 4" in result[3]
    layer, head = map(int, re.findall(r"Layer (\d+), head (\d+)", result[4])[0])
    chances = clear.logits([clear.tokenizer.encode(TEXT)])[0, -1].double().softmax(-1)
    assert f"‘{clear.tokenizer.display_token(int(chances.argmax()))}’ with {float(chances.max()):.0%}" in result[5]
    whole = clearstory.generate(clear, TEXT, max_tokens=8, temperature=0).completions[0].text
    assert f"‘{whole.replace(' ', '␣')}’" in result[6]
    page.locator("#tour button", has_text="Back").click()
    seen.ready()
    page.locator("#tour button", has_text="Back").click()
    page.locator('#tour[data-shown="4"]').wait_for()
    seen.ready()
    body = page.locator('[data-card="head-pattern"] .card-body')
    assert (body.get_attribute("data-layer"), body.get_attribute("data-head")) == (str(layer), str(head))
    page.reload()  # the address says where in the tour
    page.locator('#tour[data-shown="4"]').wait_for()
    assert seen.ready().page.locator(".tour-text").inner_text() == result[4]
    page.locator("#tour button", has_text="End").click()
    assert page.locator("#tour").is_hidden()
    page.goto(seen.url)  # who has seen it is not shown around again
    assert seen.ready().page.locator("#tour").is_hidden()


@pytest.mark.parametrize(
    ("model", "pages"),
    [
        ("models/ngram", ["tokens", "families", "families", "residual-stream", "next-token", "generate"]),
        pytest.param(
            "models/lstm",
            ["tokens", "embeddings", "families", "families", "next-token", "generate"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "models/bert",
            ["tokens", "embeddings", "attention", "attention", "families", "architecture"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_tour_shows_an_alternative_for_unsupported_views(visit: Open, model: str, pages: list[str]) -> None:
    seen = visit(page="home", model=model, text="the cat sat", tour=0)
    for step, name in enumerate(pages, 1):
        seen.page.locator("#tour button.strong").click()
        seen.page.locator(f'#tour[data-shown="{step}"]').wait_for()
        seen.ready()
        assert seen.page.locator("body").get_attribute("data-page") == name
        usual = ["tokens", "embeddings", "attention", "attention", "next-token", "generate"][step - 1] == name
        result = seen.page.locator(".tour-text").inner_text()
        assert usual != result.startswith("This step needs ")
        assert len(result) > 60


def test_a_first_visit_opens_on_the_picture_and_in_an_empty_folder_on_the_tour(
    visit: Open, installed: Path, tmp_path: Path
) -> None:
    with serving(installed, tmp_path) as (_, url):
        seen = visit(url=url)
        seen.page.goto(url)
        seen.ready()
        assert "There is no model in this folder yet" in seen.page.locator("#tour").inner_text()
        assert seen.page.locator("#tour button", has_text="Train the built-in tiny model").is_visible()
        assert seen.page.locator("#tour button.strong").is_disabled()
    seen = visit()
    assert "model=" in seen.page.url
    assert seen.page.locator("#tour").is_hidden()
    seen.open(model=CLEAR, text="the cat")
    assert seen.page.locator("body").get_attribute("data-page") == "sentence"


# ---- Home


def test_a_pinned_token_is_masked_for_an_encoder(visit: Open, home: Path) -> None:
    seen = visit(page="families", model="models/bert", text="the cat sat", query=2)
    rows = seen.page.locator('[data-card="fill-mask"] .report-body tbody tr')
    view = clearstory.inspect(home / "models" / "bert", "the cat sat", view="fill-mask", mask=(2,))
    step = view.panels[0]
    assert (
        seen.page.locator('[data-card="fill-mask"] .report-body h3, [data-card="fill-mask"] h3').first.inner_text()
        == step.title
    )
    assert [row.locator("td").first.inner_text() for row in rows.all()] == [row[0] for row in step.rows]
    assert step.title.startswith("Position 2")


def test_home_opens_a_path_or_explains_how_to_link_one(visit: Open, home: Path) -> None:
    deep = home / "a" / "b" / "c" / "d" / "e"
    shutil.copytree(home / "models" / "lstm", deep)
    seen = visit(page="home", model=CLEAR)
    page = seen.page
    assert "last used" in page.locator(f'[data-model="{CLEAR}"] dl').inner_text()
    assert "nats per token" in page.locator('[data-model="runs/short"] dl').inner_text()
    page.locator('input[name="path"]').fill("/far/off")
    page.keyboard.press("Enter")
    page.locator("#page .hint", has_text=f"ln -s /far/off {home}/off").wait_for()
    page.locator('input[name="path"]').fill("a/b/c/d/e")
    page.keyboard.press("Enter")
    page.locator('body[data-page="tokens"]').wait_for()
    assert "model=a%2Fb%2Fc%2Fd%2Fe" in page.url
    assert seen.ready().page.locator("#chips .chip").count() > 0


@pytest.mark.parametrize("page", ["generate", pytest.param("next-token", marks=pytest.mark.slow)])
def test_nothing_is_wider_than_a_narrow_window(visit: Open, page: str) -> None:
    seen = visit(width=420, page=page, model=CLEAR, text=TEXT, tour=1, beam=4, tokens=4)
    if page == "generate":
        seen.page.locator("button", has_text="Measure").click()
        seen.ready()
        assert seen.page.locator('[data-card="decoding-comparison"] .leaf').count() > 8
    assert seen.page.evaluate("() => document.documentElement.scrollWidth") <= 420
