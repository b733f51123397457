"""Adapters written here open in peft with the same outputs, and the reverse. All parameters are randomized first."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from test_transformers import CASES, greedy, layers_of_ours, ours, rows, theirs, worst
from torch import Tensor

from clearstory.errors import BadInput
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.lora.adapters import read_adapter, save_adapter
from clearstory.formats.model_card import ModelCard
from clearstory.models.lora import adapt, lora_layers, merge_lora

peft = pytest.importorskip("peft", reason="the oracle, peft, is not installed: pip install peft")

# peft asks transformers in a word that transformers has outgrown.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

ATTENTION = ("query", "key", "value", "output")
THINKING = ("gate", "up", "down")

# What is adapted here, and the names and ranks that it has over there.
OURS: dict[str, tuple[str, tuple[str, ...], dict[str, int]]] = {
    "gpt2": ("gpt2", ("query", "value"), {"attn.c_attn": 6}),
    "gpt2-whole": ("gpt2-no-bias", (*ATTENTION, "up", "down"), {"attn.c_attn": 9, "attn.c_proj": 3, "mlp.c_proj": 3}),
    "gpt2-one-c_proj": ("gpt2", ("key", "down"), {"attn.c_attn": 3, "mlp.c_proj": 3}),
    "llama": ("llama", ("query", "value"), {"self_attn.q_proj": 3, "self_attn.v_proj": 3}),
    "llama-first-layer": ("llama-grouped-tied", ("blocks.0.*",), {"layers.0.mlp.up_proj": 3}),
    "qwen3": ("qwen3", (*ATTENTION, *THINKING), {"self_attn.o_proj": 3, "mlp.gate_proj": 3}),
    "phi3": ("phi3", (*ATTENTION, *THINKING), {"self_attn.qkv_proj": 9, "mlp.gate_up_proj": 6, "mlp.down_proj": 3}),
    "phi3-grouped": ("phi3-grouped-tied", ("value", "up"), {"self_attn.qkv_proj": 3, "mlp.gate_up_proj": 3}),
    "mistral": ("mistral", ("output", "down"), {"self_attn.o_proj": 3}),
}


def some(cases: Iterable[str], *quick: str) -> list[Any]:
    """All cases, those that are not quick marked as slow: each opens transformers' model two or three times."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in cases]


@torch.no_grad()
def logits(model: Any, ids: Tensor) -> Tensor:
    out: Tensor = model(ids).logits if hasattr(model, "peft_config") else layers_of_ours(model, ids)[-1]
    return out


@pytest.mark.parametrize("name", some(OURS, "gpt2-whole", "llama-first-layer", "phi3"))
def test_our_adapter_opens_in_peft_with_the_same_logits(name: str, tmp_path: Path) -> None:
    case, targets, ranks = OURS[name]
    config = CASES[case]
    base = ours(config)
    save_model(tmp_path / "base", base, None, ModelCard(name="base"))
    adapted = adapt(base, rank=3, alpha=7.0, targets=targets, dropout=0.1, seed=1)
    with torch.no_grad():
        for number, each in enumerate(lora_layers(adapted).values()):
            each.lora_b.add_(torch.randn(each.lora_b.shape, generator=torch.Generator().manual_seed(number)) * 0.3)
    folder = save_adapter(tmp_path / "adapter", adapted, tmp_path / "base", None, ModelCard(name=name))
    oracle = peft.PeftModel.from_pretrained(theirs(tmp_path / "base"), folder).eval()
    for end, rank in ranks.items():
        found = [m for n, m in oracle.base_model.model.named_modules() if n.endswith(end) and hasattr(m, "lora_A")]
        assert found, end
        assert {each.lora_A["default"].out_features for each in found} == {rank}
    ids = rows(config)
    difference = worst([logits(adapted, ids)], [logits(oracle, ids)])
    print(f"measured {name}: {difference:.1e}")  # shown with -rP
    assert difference <= 1e-5
    assert worst([logits(adapted, ids)], [logits(base, ids)]) > 1e-2, "the adapter does nothing"

    # OpenedModel here it is merged, and read beside its base it is what was saved, bit for bit.
    opened = open_model(folder)
    assert opened.model.config == config
    assert worst([logits(opened.model, ids)], [logits(adapted, ids)]) <= 1e-5
    again = read_adapter(folder, base)
    assert {n: t.tolist() for n, t in again.state_dict().items()} == {
        n: t.tolist() for n, t in adapted.state_dict().items()
    }
    assert [each.alpha for each in lora_layers(again).values()] == pytest.approx([7.0] * len(lora_layers(adapted)))

    # Merged and saved, transformers opens it without peft; and their merging gives what ours does.
    merged = theirs(save_model(tmp_path / "merged", merge_lora(adapted), None, ModelCard()))
    with torch.no_grad():
        assert worst([merged(ids).logits], [logits(oracle, ids)]) <= 1e-5
        assert worst([oracle.merge_and_unload()(ids).logits], [merged(ids).logits]) <= 1e-5


# What peft is asked for, and the class it is asked of.
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "gpt2-all": ("gpt2", {"target_modules": "all-linear", "fan_in_fan_out": True}),
    "gpt2-layer": ("gpt2", {"target_modules": ["c_proj"], "fan_in_fan_out": True, "layers_to_transform": [1]}),
    "llama": ("llama", {"target_modules": ["q_proj", "v_proj"]}),
    "llama-rslora": ("llama", {"target_modules": ["q_proj", "down_proj"], "use_rslora": True, "lora_alpha": 3}),
    "llama-patterns": (
        "llama-bias-gelu",
        {
            "target_modules": ["q_proj", "v_proj", "up_proj"],
            "rank_pattern": {"v_proj": 2, "layers.1.mlp.up_proj": 7},
            "alpha_pattern": {"q_proj": 40},
        },
    ),
    "llama-regular-expressions": (
        "llama-bias-gelu",
        {
            "target_modules": ["q_proj", "v_proj", "up_proj"],
            "rank_pattern": {r"layers\.[12]\..*": 2, "up_proj": 7},
            "alpha_pattern": {r"self_attn\.(q|v)_proj": 40, r"model\.layers\.\d\.mlp\.up_.*": 3},
        },
    ),
    "qwen3": ("qwen3", {"target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1}),
    "phi3": ("phi3", {"target_modules": "all-linear"}),
    "mistral": ("mistral", {"target_modules": ["o_proj"], "init_lora_weights": "gaussian"}),
}


@pytest.mark.parametrize("name", some(THEIRS, "gpt2-all", "llama-patterns", "phi3"))
def test_their_adapter_opens_here_with_the_same_logits(name: str, tmp_path: Path) -> None:
    case, settings = THEIRS[name]
    config = CASES[case]
    base = ours(config)
    save_model(tmp_path / "base", base, None, ModelCard(name="base"))
    oracle = peft.get_peft_model(
        theirs(tmp_path / "base"), peft.LoraConfig(r=4, task_type="CAUSAL_LM", **{"lora_alpha": 6, **settings})
    ).eval()
    with torch.no_grad():
        for number, (key, weight) in enumerate(oracle.named_parameters()):
            if "lora_B" in key:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.3)
    oracle.save_pretrained(tmp_path / "adapter")
    opened = open_model(tmp_path / "adapter")
    ids = rows(config)
    difference = worst([logits(opened.model, ids)], [logits(oracle, ids)])
    print(f"measured {name}: {difference:.1e}")  # shown with -rP
    assert difference <= 1e-5
    assert worst([logits(opened.model, ids)], [logits(base, ids)]) > 1e-2, "the adapter does nothing"
    out = oracle.generate(ids[:1, :8], attention_mask=torch.ones(1, 8), do_sample=False, max_new_tokens=20)
    assert greedy(opened, ids[0, :8].tolist(), 20) == out[0, 8:].tolist()

    # And back: read beside its base and saved again, it is theirs still.
    adapted = read_adapter(tmp_path / "adapter", base)
    assert worst([logits(adapted, ids)], [logits(oracle, ids)]) <= 1e-5
    save_adapter(tmp_path / "again", adapted, tmp_path / "base", None, ModelCard())
    back = peft.PeftModel.from_pretrained(theirs(tmp_path / "base"), tmp_path / "again").eval()
    assert worst([logits(back, ids)], [logits(oracle, ids)]) <= 1e-5


def test_every_setting_of_peft_is_known_or_off() -> None:
    """A newer peft may have settings that change numbers: those we do not know must be off by default."""
    from clearstory.formats.lora.adapter_config import IGNORED_ADAPTER_KEYS, SUPPORTED_ADAPTER_KEYS

    usual = json.loads(json.dumps(peft.LoraConfig().to_dict(), default=str))
    assert usual.keys() >= SUPPORTED_ADAPTER_KEYS
    unknown = {key: value for key, value in usual.items() if key not in SUPPORTED_ADAPTER_KEYS | IGNORED_ADAPTER_KEYS}
    assert not any(unknown.values()), unknown


# More than LoRA of linear layers: merged when they are opened, and refused where training would continue.
WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "head": ("llama", {"target_modules": ["lm_head", "q_proj"]}),
    "head-tied": ("qwen3", {"target_modules": ["lm_head", "q_proj"]}),
    "embedding": ("llama", {"target_modules": ["embed_tokens"], "alpha_pattern": {"embed_tokens": 9}}),
    "embedding-tied": ("llama-grouped-tied", {"target_modules": ["embed_tokens", "v_proj"]}),
    "gpt2-embedding": ("gpt2", {"target_modules": ["wte", "c_attn"], "fan_in_fan_out": True}),
    "saved-modules": ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens", "norm"]}),
    "saved-tied": ("qwen3", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "saved-linear": ("phi3", {"target_modules": ["qkv_proj"], "modules_to_save": ["gate_up_proj"]}),
    "dora": ("llama", {"target_modules": ["q_proj", "up_proj"], "use_dora": True}),
    "dora-gpt2": ("gpt2", {"target_modules": ["c_attn"], "use_dora": True, "fan_in_fan_out": True}),
    "dora-rslora": ("phi3", {"target_modules": ["qkv_proj"], "use_dora": True, "use_rslora": True}),
}


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("name", some(WHOLE, "head-tied", "embedding-tied", "saved-modules", "saved-tied", "dora-gpt2"))
def test_whole_weights_and_dora_open_merged_with_the_same_logits(name: str, tmp_path: Path) -> None:
    case, settings = WHOLE[name]
    config = CASES[case]
    base = ours(config)
    save_model(tmp_path / "base", base, None, ModelCard(name="base"))
    oracle = peft.get_peft_model(
        theirs(tmp_path / "base"), peft.LoraConfig(r=4, task_type="CAUSAL_LM", **{"lora_alpha": 6, **settings})
    ).eval()
    with torch.no_grad():
        for number, (key, weight) in enumerate(oracle.named_parameters()):
            if "lora_" in key or "modules_to_save" in key:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.2)
    oracle.save_pretrained(tmp_path / "adapter")
    opened = open_model(tmp_path / "adapter")
    ids = rows(config)
    assert worst([logits(opened.model, ids)], [logits(oracle, ids)]) <= 1e-5
    assert worst([logits(opened.model, ids)], [logits(base, ids)]) > 1e-2, "the adapter does nothing"
    with pytest.raises(BadInput, match="merge it first: clearstory convert"):
        read_adapter(tmp_path / "adapter", base)
    merged = theirs(save_model(tmp_path / "merged", opened.model, None, opened.card))
    with torch.no_grad():
        assert worst([merged(ids).logits], [logits(oracle, ids)]) <= 1e-5


TRAINED: dict[str, tuple[str, tuple[str, ...]]] = {
    "tied": ("gpt2", ("embedding",)),
    "untied": ("llama", ("embedding", "unembedding")),
    "input only": ("llama", ("embedding",)),
    "fused and tied": ("phi3-grouped-tied", ("embedding", "norm")),
}


@pytest.mark.parametrize("name", some(TRAINED, "tied", "input only"))
def test_trained_embeddings_are_stored_whole(name: str, tmp_path: Path) -> None:
    case, modules = TRAINED[name]
    config = CASES[case]
    base = ours(config)
    save_model(tmp_path / "base", base, None, ModelCard(name="base"))
    before = {key: tensor.clone() for key, tensor in base.state_dict().items()}
    adapted = adapt(base, rank=3, targets=("query",), modules_to_save=modules, seed=1)
    with torch.no_grad():
        for number, each in enumerate(each for each in adapted.parameters() if each.requires_grad):
            each.add_(torch.randn(each.shape, generator=torch.Generator().manual_seed(number)) * 0.3)
    assert all(torch.equal(tensor, before[key]) for key, tensor in base.state_dict().items())
    ids = rows(config)
    expected = [logits(adapted, ids)]
    folder = save_adapter(tmp_path / "adapter", adapted, tmp_path / "base", None, ModelCard(name=name))
    assert worst([logits(read_adapter(folder, adapted), ids)], expected) <= 1e-5
    opened = open_model(folder)
    assert opened.model.config == config
    assert worst([logits(opened.model, ids)], expected) <= 1e-5
    with pytest.warns(UserWarning, match="tie") if config.tie_embeddings else nullcontext():
        oracle = peft.PeftModel.from_pretrained(theirs(tmp_path / "base"), folder).eval()
    assert worst([logits(oracle, ids)], expected) <= 1e-5
    merged = save_model(tmp_path / "merged", merge_lora(adapted), None, ModelCard())
    with torch.no_grad():
        assert worst([theirs(merged)(ids).logits], expected) <= 1e-5
