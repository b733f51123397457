"""Head types: a head with one pattern is classified by it, in every model."""

from __future__ import annotations

import io
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from clearstory.errors import BadInput
from clearstory.lens.hooks.activations import replace_activations
from clearstory.lens.hooks.attention_sites import attention_sites
from clearstory.lens.hooks.passage import Passage
from clearstory.lens.probes.head_types import THRESHOLDS, head_type, head_types, measure_heads, repeated_random_tokens
from clearstory.lens.rendering.dispatch import render_svg, render_terminal
from clearstory.lens.rendering.render import render_csv, render_html
from clearstory.lens.rendering.tile_grid import LEVELS, cell_level
from clearstory.lens.views import Table, Tile, TileGrid
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_GPT2, shaken

TOKENIZER = train_tokenizer("characters", ["abcdefghijklmnop"])
SIZES: dict[str, Any] = {
    "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "width": 16, "intermediate_size": 24,
    "vocab": TOKENIZER.vocab, "context": 64,
}  # fmt: skip
IDS = (5, 6, 7, 5, 8, 6, 9, 10)
READ = Passage(IDS, tuple(map(str, IDS)))


def decoder() -> Any:
    return shaken(replace(TINY_GPT2, **SIZES))


def encoder() -> Any:
    return shaken(replace(BERT_TINY, **SIZES))


def all_on(position: Callable[[int, int], int]) -> Callable[[Tensor], Tensor]:
    """Heads that put all weight on one key: that at position(query, how many)."""

    def change(pattern: Tensor) -> Tensor:
        out = torch.zeros_like(pattern)
        for query in range(pattern.shape[2]):
            out[:, :, query, max(0, min(position(query, pattern.shape[2]), pattern.shape[3] - 1))] = 1.0
        return out

    return change


# For each type: the key that such a head attends to, and a model with such heads.
ONE_THING: dict[str, tuple[Callable[[int, int], int], Callable[[], Any]]] = {
    "previous": (lambda query, count: query - 1, decoder),
    "first": (lambda query, count: 0, decoder),
    "same": (lambda query, count: query, decoder),
    "next": (lambda query, count: query + 1, encoder),
    "last": (lambda query, count: count - 1, encoder),
}


@pytest.mark.parametrize("name", ONE_THING)
def test_a_head_with_one_pattern_has_its_type(name: str) -> None:
    position, make = ONE_THING[name]
    model = make()
    with replace_activations(model, {"blocks.1.attention.pattern": all_on(position)}):
        found = measure_heads(model, TOKENIZER, READ)
    assert found.types[1] == (name, name)
    assert torch.allclose(found.scores[name][1], torch.ones(2).double())
    assert torch.all(found.scores["diffuse"][1] < 0.01)


def test_an_induction_head_is_found_in_repeated_tokens() -> None:
    model = decoder()
    again, back = repeated_random_tokens(model, TOKENIZER, READ, seed=3)
    count = back + 1
    assert again.ids[1 : 1 + count] == again.ids[1 + count :]
    assert not set(again.ids[1:]) & {i for i, special in enumerate(TOKENIZER.special_tokens_mask) if special}
    with replace_activations(model, {"blocks.1.attention.pattern": all_on(lambda query, count: query - back)}):
        found = measure_heads(model, TOKENIZER, READ, seed=3)
    assert found.types[1] == ("induction", "induction")
    # In the second half the token that far back is the one that followed this one.
    assert all(again.ids[query - back - 1] == again.ids[query] for query in range(2 * back, len(again.ids)))
    assert torch.allclose(found.scores["induction"][1], torch.ones(2).double())
    assert "induction" not in measure_heads(encoder(), TOKENIZER, READ).scores


def test_even_weights_are_diffuse() -> None:
    model = decoder()
    even = torch.ones(8, 8).tril()
    even = even / even.sum(-1, keepdim=True)

    def change(pattern: Tensor) -> Tensor:
        return even.to(pattern).expand_as(pattern) if pattern.shape[-1] == 8 else pattern

    with replace_activations(model, {"blocks.0.attention.pattern": change}):
        found = measure_heads(model, TOKENIZER, READ)
    assert torch.allclose(found.scores["diffuse"][0], torch.ones(2).double())
    # The token before, of 2 to 8 tokens seen: mean of 1/2 ... 1/8.
    assert float(found.scores["previous"][0, 0]) == pytest.approx(sum(1 / n for n in range(2, 9)) / 7)
    # Itself, and for the 5 at place 3 and the 6 at place 5 their like: sum of 1/n, and 1/4 and 1/6 more.
    assert float(found.scores["same"][0, 0]) == pytest.approx((sum(1 / n for n in range(2, 9)) + 1 / 4 + 1 / 6) / 7)


def test_types_need_their_thresholds() -> None:
    assert head_type({"previous": 0.39, "first": 0.1, "diffuse": 0.84}) == "unclear"
    assert head_type({"previous": 0.41, "first": 0.59, "diffuse": 0.9}) == "first"
    assert head_type({"induction": 0.4, "first": 0.9, "diffuse": 0.1}) == "induction"
    assert head_type({"first": 0.1, "diffuse": 0.85}) == "diffuse"
    assert all(0 < threshold < 1 for threshold in THRESHOLDS.values())


def test_a_single_token_has_no_choice_and_no_type() -> None:
    found = measure_heads(decoder(), TOKENIZER, Passage((5,), ("a",)))
    assert float(found.scores["first"].abs().sum()) == 0


@pytest.mark.parametrize("part", ["encoder", "decoder", "cross"])
def test_every_part_of_an_encoder_decoder_is_measured(part: Any) -> None:
    model: Any = shaken(replace(T5_SMALL, **SIZES, decoder_start_token_id=0))
    view = head_types(model, TOKENIZER, "abcab", part=part, target="ba")
    tile_grid, table = view.panels
    assert isinstance(tile_grid, TileGrid)
    assert isinstance(table, Table)
    assert ("induction" in table.columns) == (part == "decoder")
    assert ("last" in table.columns) == (part != "decoder")
    assert ("next" in table.columns) == (part == "encoder")
    assert len(table.rows) == 4
    assert len(tile_grid.tiles[0][0].cells) == (6 if part == "encoder" else 3)
    assert len(tile_grid.tiles[0][0].cells[0]) == (3 if part == "decoder" else 6)
    assert len(attention_sites(model, part)) == len(tile_grid.tiles)


def test_the_view_shows_what_was_measured() -> None:
    model = decoder()
    with replace_activations(model, {"blocks.1.attention.pattern": all_on(lambda query, count: query - 1)}):
        view = head_types(model, TOKENIZER, "abcabcdd")
    tile_grid, table = view.panels
    assert isinstance(tile_grid, TileGrid)
    assert isinstance(table, Table)
    assert "2 previous (highest score 1.00: head 1.0)" in str(view.caption)
    assert [row[:3] for row in table.rows[2:]] == [(1, 0, "previous"), (1, 1, "previous")]
    assert [tile.score for tile in tile_grid.tiles[1]] == pytest.approx([1.0, 1.0])
    assert tile_grid.tiles[1][0].cells[1][0] == 255
    drawn = render_svg(view)
    ET.fromstring(drawn)
    assert "layer 1, 0: previous 1" in drawn
    assert render_csv(tile_grid).splitlines()[3].startswith("layer 1,0,previous,")
    assert "previous" in render_html(view)
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(render_terminal(view, 80))
    assert "layer 1  prev 1.00" in console.file.getvalue()  # type: ignore[attr-defined]
    assert json.loads(json.dumps(view.to_json(), allow_nan=False))["panels"][0]["tiles"][1][0]["category"] == "previous"


def test_strokes_hold_every_cell_that_is_not_faint() -> None:
    cells = ((0, 255, 255), (128, 10, 60))
    view = TileGrid(
        title="m", row_labels=("r",), column_labels=("c",), tiles=((Tile("a", 0.5, cells),),), categories=("a", "b")
    )
    paths = [each for each in ET.fromstring(render_svg(view)).iter() if each.tag.endswith("path")]
    drawn = {(each.get("opacity"), each.get("d")) for each in paths}
    assert drawn == {("1", "M1 0.5h2"), ("0.6", "M0 1.5h1"), ("0.2", "M2 1.5h1")}
    assert cell_level(255) == LEVELS
    assert math.isclose(cell_level(26), 1)
    for wrong in ({"row_labels": ("r", "s")}, {"categories": ("b",)}):
        with pytest.raises(BadInput):
            replace(view, **wrong)  # type: ignore[arg-type]
