"""LoRA adapters: save then open is the identity; inconsistent and unsupported files are rejected with one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clearstory.errors import BadInput, CannotDo, ClearstoryError, CorruptFile, FolderExists
from clearstory.formats.folders import open_model, save_model, update_model_card
from clearstory.formats.lora.adapters import model_fused_linears, read_adapter, save_adapter, weights_fingerprint
from clearstory.formats.lora.fused_layers import fuse_lora, split_lora
from clearstory.formats.model_card import ModelCard
from clearstory.models.base import TokenBatch
from clearstory.models.lora import adapt, lora_layers, merge_lora
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS, TINY_CLEAR, TINY_GPT2, TINY_LSTM, TINY_RECALL, shaken

IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])


def learnt(config: Any, rank: int = 3, **settings: Any) -> tuple[Any, Any]:
    """A base model, and the same with a trained adapter."""
    base = shaken(config).float()
    adapted = adapt(base, rank=rank, **settings)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for each in lora_layers(adapted).values():
            each.lora_b.add_(torch.randn(each.lora_b.shape, generator=generator))
    return base, adapted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and an adapter of it."""
    folder = tmp_path_factory.mktemp("made")
    base, adapted = learnt(TINY_GPT2, targets=("query", "value", "down"))
    save_model(
        folder / "base",
        base,
        train_tokenizer("characters", ["abcdefghijklm"]),
        ModelCard(name="base", bits_per_byte=2.0),
    )
    save_adapter(folder / "adapter", adapted, folder / "base", None, ModelCard(name="small"))
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of the adapter without checksums, to be modified."""
    ignored = shutil.ignore_patterns("checksums.json")
    return Path(shutil.copytree(made / "adapter", tmp_path / "adapter", ignore=ignored))


def logits(model: Any) -> Tensor:
    out: Tensor = model.logits(model.forward(TokenBatch(IDS))[0])
    return out.detach()


@pytest.mark.parametrize(
    ("config", "targets"),
    [
        (TINY_CLEAR, ("query", "gate")),
        (TINY_GPT2, ("query", "key", "value", "output", "up", "down")),
        (TINY_RECALL, ("query", "input_projection")),
        (TINY_LSTM, ("input", "recurrent")),
    ],
    ids=["qwen3", "gpt2", "own names", "lstm"],
)
def test_a_saved_adapter_opens_unchanged(config: Any, targets: tuple[str, ...], tmp_path: Path) -> None:
    base, adapted = learnt(config, targets=targets)
    save_model(tmp_path / "base", base, None, ModelCard(name="base"))
    save_adapter(tmp_path / "adapter", adapted, tmp_path / "base", None, ModelCard(name="small", bits_per_byte=1.5))
    opened = open_model(tmp_path / "adapter")
    # A recurrent model reads step by step while it is adapted, and sums in another order.
    assert torch.allclose(logits(opened.model), logits(adapted), rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(opened.model), logits(merge_lora(adapted)))
    assert (opened.card.name, opened.card.bits_per_byte, opened.model.training) == ("small", 1.5, False)
    again = read_adapter(tmp_path / "adapter", base).state_dict()
    assert again.keys() == adapted.state_dict().keys()
    assert all(torch.equal(again[name], each) for name, each in adapted.state_dict().items())


def test_an_untrained_adapter_equals_its_base_and_keeps_its_ranks(tmp_path: Path) -> None:
    base = shaken(TINY_GPT2).float()
    adapted = adapt(base, rank=2, targets=("query", "value"))
    save_model(tmp_path / "base", base, None, ModelCard())
    save_adapter(tmp_path / "adapter", adapted, tmp_path / "base", None, ModelCard())
    assert torch.equal(logits(open_model(tmp_path / "adapter").model), logits(base))
    assert {each.rank for each in lora_layers(read_adapter(tmp_path / "adapter", base)).values()} == {2}


def test_an_adapter_without_block_structure_is_split_with_the_same_a(made: Path, copy: Path) -> None:
    tensors = load_file(copy / "adapter_model.safetensors")
    name = next(name for name in tensors if "c_attn.lora_B" in name)
    tensors[name] = tensors[name] + 1
    save_file(tensors, copy / "adapter_model.safetensors", {"format": "pt"})
    base = open_model(made / "base").model
    found = lora_layers(read_adapter(copy, base))
    layer = name.split(".")[4]
    # 3 columns of query and 3 of value: all six serve each of the three
    assert [found[f"blocks.{layer}.attention.{part}"].rank for part in ("query", "key", "value")] == [6, 6, 6]
    whole = merge_lora(read_adapter(copy, base)).state_dict()[f"blocks.{layer}.attention.key.weight"]
    a, b = tensors[name.replace("lora_B", "lora_A")], tensors[name]
    rows = slice(16, 32)  # query, key and value have 16 each
    was = base.state_dict()[f"blocks.{layer}.attention.key.weight"]
    # alpha / rank is 16 / 3
    assert torch.allclose(whole, was + 16 / 3 * b[rows] @ a, atol=1e-5)


def test_split_lora_inverts_fuse_lora() -> None:
    _, adapted = learnt(TINY_GPT2, targets=("query", "key", "value"))
    found = lora_layers(adapted)
    for linear in model_fused_linears(adapted)[1]:
        if len(linear.native_names) == 3:
            pair = fuse_lora(linear, found)
            products = [
                pair.alpha / len(pair.a) * part for part in torch.split(pair.b @ pair.a, list(linear.out_features))
            ]
            for name, product in zip(linear.native_names, products, strict=True):
                each = found[name]
                assert torch.allclose(product, each.scale * each.lora_b @ each.lora_a, atol=1e-4)
            for ranks in ({}, dict.fromkeys(linear.native_names, 3)):
                for name, one in split_lora(linear, pair, ranks).items():
                    each = found[name]
                    product = one.alpha / len(one.a) * one.b @ one.a
                    assert torch.allclose(product, each.scale * each.lora_b @ each.lora_a, atol=1e-4)


def test_a_tokenizer_comes_from_the_base(made: Path) -> None:
    opened = open_model(made / "adapter")
    assert opened.tokenizer is not None
    assert opened.tokenizer.vocab == open_model(made / "base").tokenizer.vocab  # type: ignore[union-attr]


def test_a_base_beside_the_adapter_is_found(made: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(made, tmp_path / "moved")
    (whole / "adapter" / "checksums.json").unlink()
    edit(whole / "adapter", lambda said: said.update(base_model_name_or_path="base"))
    assert torch.equal(logits(open_model(whole / "adapter").model), logits(open_model(made / "adapter").model))


def test_a_model_card_can_be_updated(copy: Path) -> None:
    before = (copy / "adapter_model.safetensors").read_bytes()
    update_model_card(copy, ModelCard(name="other", bits_per_byte=1.25))
    assert open_model(copy).card.bits_per_byte == 1.25
    assert (copy / "adapter_model.safetensors").read_bytes() == before
    text = (copy / "README.md").read_text()
    assert "library_name: peft" in text
    assert "AutoPeftModelForCausalLM" in text
    assert "1.2500" in text


def test_models_with_adapters_and_without_are_saved_by_different_functions(made: Path, tmp_path: Path) -> None:
    base, adapted = learnt(TINY_GPT2)
    with pytest.raises(CannotDo, match="has LoRA adapters; merge them"):
        save_model(tmp_path / "model", adapted, None, ModelCard())
    with pytest.raises(CannotDo, match="has no LoRA adapters"):
        save_adapter(tmp_path / "model", base, "base", None, ModelCard())
    with pytest.raises(FolderExists, match="exists already"):
        save_adapter(made / "adapter", adapted, "base", None, ModelCard())
    assert not (tmp_path / "model").exists()


def test_the_fingerprint_depends_on_base_weights_only() -> None:
    base, adapted = learnt(TINY_GPT2)
    assert weights_fingerprint(adapted) == weights_fingerprint(base)
    assert weights_fingerprint(merge_lora(adapted)) != weights_fingerprint(base)


def edit(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "adapter_config.json") -> None:
    said = json.loads((folder / name).read_text())
    change(said)
    (folder / name).write_text(json.dumps(said))


def tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    found = load_file(folder / "adapter_model.safetensors")
    change(found)
    save_file(found, folder / "adapter_model.safetensors", {"format": "pt"})


FIRST = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"

ASKS: dict[str, tuple[dict[str, Any], str]] = {
    "dora": ({"use_dora": True}, r"has use_dora, and .* lacks lora_magnitude_vector of transformer\.h\.0"),
    "bias": ({"bias": "lora_only"}, r"has bias = 'lora_only'; supported: 'none'"),
    "saved": ({"modules_to_save": ["lm_head"]}, r"saves lm_head, and .* holds no weights of it"),
    "pissa": ({"init_lora_weights": "pissa"}, "has init_lora_weights = 'pissa'; it also changes the base weights"),
    "unknown": ({"use_more": 1}, "has use_more = 1"),
    "ia3": ({"peft_type": "IA3"}, "has peft_type = 'IA3'; supported: 'LORA'"),
    "no base": ({"base_model_name_or_path": None}, "names no base model"),
    "hub": ({"base_model_name_or_path": "who/what"}, "has the base model who/what, which does not exist"),
    "rank": ({"r": 2**40}, "has r = 1099511627776; it must be an integer from 1 to 65,536"),
    "alpha": ({"lora_alpha": "much"}, "has lora_alpha = 'much'"),
    "pattern": ({"rank_pattern": {"(a+)+$": 3}}, r"has rank_pattern = '\(a\+\)\+\$'; supported: regular expr"),
    "no pattern": ({"rank_pattern": [3]}, "it must be an object"),
    "other rank": ({"r": 4}, r"lora_A of .* with shape \[4, .*\], and adapter_model.safetensors holds \[6, "),
}


@pytest.mark.parametrize("name", ASKS)
def test_unsupported_settings_are_rejected(name: str, copy: Path) -> None:
    said, sentence = ASKS[name]
    edit(copy, lambda config: config.update(said))
    with pytest.raises(ClearstoryError, match=sentence):
        open_model(copy)


SPOILS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "half": (lambda found: found.pop(FIRST), "holds transformer.h.0.attn.c_attn without its lora_A"),
    "wide": (lambda found: found.update({FIRST: torch.ones(6, 5)}), r"shape \[6, 16\], and .* holds \[6, 5\]"),
    "whole": (
        lambda found: found.update({"base_model.model.lm_head.lora_A.weight": torch.ones(2, 2)}),
        r"holds lora_A of lm_head, which is not a linear layer of the base",
    ),
    "embedding": (
        lambda found: found.update({"base_model.model.transformer.wte.lora_embedding_A": torch.ones(2, 2)}),
        r"holds lora_embedding_A of transformer\.wte, which is not a linear layer",
    ),
    "magnitude": (
        lambda found: found.update({FIRST.replace("lora_A", "lora_magnitude_vector"): torch.ones(2)}),
        "does not have use_dora",
    ),
    "counts": (lambda found: found.update({FIRST: torch.ones(6, 16, dtype=torch.int32)}), "stored as I32"),
}


@pytest.mark.parametrize("name", SPOILS)
def test_tensors_that_do_not_fit_are_rejected(name: str, copy: Path) -> None:
    change, sentence = SPOILS[name]
    tensors(copy, change)
    with pytest.raises(ClearstoryError, match=sentence):
        open_model(copy)


def test_another_base_of_the_same_shape_is_refused(made: Path, copy: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "other", shaken(TINY_GPT2, seed=9).float(), None, ModelCard())
    edit(copy, lambda said: said.update(base_model_name_or_path=str(tmp_path / "other")))
    with pytest.raises(CorruptFile, match=r"trained on a model with weights other than those of .*other"):
        open_model(copy)
    # Without the hash, the base is not checked.
    (copy / "clearstory.json").unlink()
    open_model(copy)


def test_an_adapter_of_an_adapter_and_one_of_itself_are_refused(made: Path, copy: Path) -> None:
    for base in (made / "adapter", copy):
        edit(copy, lambda said, base=base: said.update(base_model_name_or_path=str(base)))
        with pytest.raises(BadInput, match="which is an adapter itself; merge that first"):
            open_model(copy)


def test_missing_and_malformed_files_are_named(copy: Path) -> None:
    (copy / "clearstory.json").write_text('{"ranks": {"a": -1}, "card": 3}')
    with pytest.raises(BadInput, match="card must be an object"):
        open_model(copy)
    (copy / "clearstory.json").write_text("[]")
    with pytest.raises(CorruptFile, match="holds a JSON list"):
        open_model(copy)
    (copy / "clearstory.json").unlink()
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")
    with pytest.raises(BadInput, match="can run code when it is opened"):
        open_model(copy)
    (copy / "adapter_model.bin").unlink()
    with pytest.raises(BadInput, match=r"no adapter_model.safetensors; copy the whole"):
        open_model(copy)


def test_an_ngram_model_cannot_be_a_base(made: Path, copy: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "ngram", MODELS["ngram"](), None, ModelCard())
    edit(copy, lambda said: said.update(base_model_name_or_path=str(tmp_path / "ngram")))
    (copy / "clearstory.json").unlink()
    with pytest.raises(BadInput, match=r"which the base model, a .*, does not have"):
        open_model(copy)
