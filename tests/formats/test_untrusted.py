"""Folders are untrusted input: inconsistent, truncated and unsupported ones are rejected with one sentence."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clearstory.errors import BadInput, ClearstoryError, CorruptFile, Diverged, ModelWarning
from clearstory.formats.finite import non_finite_value
from clearstory.formats.folders import open_model, save_model, update_model_card
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.transformer.config import TransformerConfig

GPT2 = TransformerConfig(vocab=19, context=12, width=8, layers=2, heads=4, kv_heads=4, head_dim=2, intermediate_size=12)
LLAMA = replace(GPT2, norm="rms", positions="rotary", gated=True, bias=False, activation="silu")
QWEN = replace(LLAMA, qk_norm=True)
NATIVE = replace(GPT2, positions="none")


def saved(tmp_path: Path, config: TransformerConfig = GPT2) -> Path:
    folder = save_model(tmp_path / "model", build(config, seed=0), None, ModelCard())
    (folder / "checksums.json").unlink()  # as a folder of another program
    return folder


def change(folder: Path, **keys: Any) -> None:
    """Set keys of config.json; None becomes null."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def drop(folder: Path, key: str) -> None:
    file = folder / "config.json"
    said = json.loads(file.read_text())
    del said[key]
    file.write_text(json.dumps(said))


STRETCH = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}

REFUSED = [
    # Values that would hang or exhaust memory if trusted.
    (GPT2, {"n_layer": 2**64 - 1}, r"n_layer = 18446744073709551615; it must be an integer from 1 to 4,096"),
    (GPT2, {"n_layer": 4096}, r"4,096 layers, but the weights are 28 tensors"),
    (GPT2, {"n_embd": 10**300}, r"n_embd = 1000"),
    (GPT2, {"n_embd": -8}, r"n_embd = -8"),
    (GPT2, {"n_embd": 8.0}, r"n_embd = 8\.0; it must be an integer"),
    (GPT2, {"n_embd": True}, r"n_embd = True"),
    (GPT2, {"n_head": 3}, r"n_embd = 8; it must be a multiple of n_head = 3"),
    (GPT2, {"n_head": None}, r"lacks 'n_head'"),
    (GPT2, {"layer_norm_epsilon": "tiny"}, r"layer_norm_epsilon = 'tiny'; it must be a number"),
    (GPT2, {"vocab_size": 2**24}, r"wte\.weight of shape \[16777216, 8\], and the weights hold \[19, 8\]"),
    (LLAMA, {"max_position_embeddings": 2**24, "head_dim": 2**10}, r"17,179,869,184 rotary angles"),
    # Unsupported settings.
    (GPT2, {"activation_function": "quick_gelu"}, r"activation_function = 'quick_gelu'; supported: gelu_new"),
    (
        GPT2,
        {"scale_attn_by_inverse_layer_idx": True},
        r"scale_attn_by_inverse_layer_idx = True; supported: False",
    ),
    (GPT2, {"add_cross_attention": True}, r"add_cross_attention = True"),
    (
        GPT2,
        {"quantization_config": {"bits": 4}},
        r"quantization_config = \{'bits': 4\}; the supported GPT2LMHeadModel has no",
    ),
    (LLAMA, {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, r"lacks 'rope_scaling\.low_freq_factor'"),
    (LLAMA, {"rope_scaling": {**STRETCH, "factor": 0.5}}, r"rope_scaling\.factor = 0\.5"),
    (LLAMA, {"rope_scaling": {**STRETCH, "low_freq_factor": 2}}, r"rope_scaling\.low_freq_factor = 2"),
    (LLAMA, {"rope_scaling": {**STRETCH, "rope_type": "yarn"}}, r"rope_scaling\.rope_type = 'yarn'; .* linear, llama3"),
    (LLAMA, {"rope_scaling": {"type": "su", "long_factor": [1.0]}}, r"rope_scaling\.type = 'su'"),
    (LLAMA, {"rope_scaling": {"rope_type": "longrope", "long_factor": [1.0]}}, r"rope_type = 'longrope'"),
    (LLAMA, {"rope_scaling": {"factor": 8.0}}, r"rope_scaling\.factor = 8\.0"),
    (LLAMA, {"rope_scaling": "linear"}, r"rope_scaling = 'linear'; it must be null or an object"),
    (LLAMA, {"rope_theta": 5.0}, r"rope_parameters\.rope_theta = 10000\.0; but rope_theta = 5\.0"),
    (LLAMA, {"partial_rotary_factor": 0.5}, r"partial_rotary_factor = 0\.5; supported: 1\.0"),
    (LLAMA, {"rope_interleaved": True}, r"rope_interleaved = True"),
    (LLAMA, {"attention_bias": True}, r"requires model\.layers\.0\.self_attn\.o_proj\.bias .*; 8 of 28 required"),
    (LLAMA, {"attention_bias": 1}, r"attention_bias = 1; it must be true or false"),
    (LLAMA, {"num_local_experts": 8}, r"num_local_experts = 8; the supported LlamaForCausalLM has no such setting"),
    (LLAMA, {"tie_word_embeddings": "yes"}, r"tie_word_embeddings = 'yes'; it must be true or false"),
    (QWEN, {"attention_bias": True}, r"attention_bias = True; supported: False"),
    (
        QWEN,
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "layer_types": None},
        "the same type for all layers",
    ),
    (QWEN, {"layer_types": ["full_attention", "chunked_attention"]}, r"layer_types = \["),
    # Other classes, and files that are not a model's.
    (GPT2, {"architectures": ["GPT2LMHeadModels"]}, r"'GPT2LMHeadModels', which is not supported; supported dec"),
    (GPT2, {"architectures": ["RobertaForMaskedLM"], "model_type": "roberta"}, r"'RobertaForMaskedLM', .*: BertModel"),
    (LLAMA, {"architectures": None, "model_type": None}, r"has neither architectures nor model_type"),
    (GPT2, {"clearstory": {"card": {"trained_on": [["a", -1]]}}}, r"card\.trained_on = -1"),
    (GPT2, {"clearstory": {"card": 3}}, r"card must be an object"),
    (NATIVE, {"family": "Transformers"}, r"family 'Transformers'; did you mean 'Transformer'\?"),
    (NATIVE, {"model": {"width": 8, "widht": 9}}, r"model\.widht; did you mean 'width'\?"),
    (NATIVE, {"model": {"width": 8}}, r"is not a valid Transformer"),
    (NATIVE, {"model": None}, r"lacks 'model'"),
]


@pytest.mark.parametrize(("config", "keys", "sentence"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_unsupported_configs_are_rejected_with_key_and_value(
    tmp_path: Path, config: TransformerConfig, keys: dict[str, Any], sentence: str
) -> None:
    folder = saved(tmp_path, config)
    change(folder, **keys)
    with pytest.raises(ClearstoryError, match=sentence) as caught:
        open_model(folder)
    assert "\n" not in str(caught.value)


def test_keys_that_are_off_or_change_no_logit_are_ignored(tmp_path: Path) -> None:
    folder = saved(tmp_path, LLAMA)
    before = open_model(folder).logits([[1, 2, 3]])
    change(
        folder, some_new_switch=False, rope_scaling=None, use_cache=False, initializer_range=0.5, torch_dtype="float16"
    )
    assert torch.equal(open_model(folder).logits([[1, 2, 3]]), before)


def test_older_files_may_lack_keys(tmp_path: Path) -> None:
    folder = saved(tmp_path, LLAMA)
    before = open_model(folder)
    for key in ("rope_parameters", "num_key_value_heads", "head_dim", "mlp_bias", "attention_bias", "clearstory"):
        drop(folder, key)
    after = open_model(folder)
    assert after.model.config == before.model.config
    # OpenAI's gpt2: no prefix, no class, and the causal mask among the weights.
    folder = save_model(tmp_path / "gpt2", build(GPT2, seed=0), None, ModelCard())
    (folder / "checksums.json").unlink()
    before = open_model(folder).logits([[1, 2, 3]])
    drop(folder, "architectures")
    change(folder, n_ctx=12, n_inner=12, task_specific_params={"text-generation": {"do_sample": True}})
    weights = {
        name.removeprefix("transformer."): tensor for name, tensor in load_file(folder / "model.safetensors").items()
    }
    weights |= {f"h.{i}.attn.bias": torch.ones(1, 1, 12, 12).tril() for i in range(2)}
    save_file(weights, folder / "model.safetensors")
    assert torch.equal(open_model(folder).logits([[1, 2, 3]]), before)


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (b"{", "is not valid JSON"),
        (b"[1]", "holds a JSON list"),
        (b'{"n_embd": Infinity}', "Infinity is not a JSON number"),
        (b"\xff\xfe\x00", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"n_embd": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b" " * (5 * 2**20), "bytes, more than the maximum"),
    ],
)
def test_a_malformed_config_is_corrupt(tmp_path: Path, contents: bytes, sentence: str) -> None:
    folder = saved(tmp_path)
    (folder / "config.json").write_bytes(contents)
    with pytest.raises(CorruptFile, match=sentence):
        open_model(folder)


def alter(folder: Path, how: Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]) -> None:
    """Rewrite the header and the numbers of the weights."""
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, numbers = how(json.loads(raw[8 : 8 + length]), raw[8 + length :])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + numbers)


def lie_about(header: dict[str, Any], **lies: Any) -> dict[str, Any]:
    return {**header, "transformer.ln_f.bias": {**header["transformer.ln_f.bias"], **lies}}


@pytest.mark.parametrize(
    "how",
    [
        lambda header, numbers: (header, numbers[:-40]),
        lambda header, numbers: (header, numbers + b"more"),
        lambda header, numbers: (lie_about(header, shape=[2**40, 2**22]), numbers),
        lambda header, numbers: (lie_about(header, data_offsets=[0, 32]), numbers),
        lambda header, numbers: (lie_about(header, data_offsets=[2**62, 2**62 + 32]), numbers),
        lambda header, numbers: (lie_about(header, data_offsets=[64, 32]), numbers),
        lambda header, numbers: (lie_about(header, dtype="F99"), numbers),
        lambda header, numbers: (lie_about(header, shape=[-8]), numbers),
    ],
    ids=["truncated", "longer", "shape", "overlap", "beyond", "backwards", "type", "negative"],
)
def test_inconsistent_weights_are_corrupt(tmp_path: Path, how: Any) -> None:
    folder = saved(tmp_path)
    alter(folder, how)
    with pytest.raises(CorruptFile, match=r"model\.safetensors of [\d,]+ bytes is not a complete file"):
        open_model(folder)


@pytest.mark.parametrize(
    "raw", [b"", b"\x00" * 7, struct.pack("<Q", 2**62), struct.pack("<Q", 10**8 - 1) + b"{}", b"<html>" * 99]
)
def test_a_file_other_than_safetensors_is_corrupt(tmp_path: Path, raw: bytes) -> None:
    folder = saved(tmp_path)
    (folder / "model.safetensors").write_bytes(raw)
    with pytest.raises(CorruptFile, match="is not a complete file"):
        open_model(folder)


def test_a_truncated_weight_file_is_corrupt(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    for end in range(0, len(raw), max(1, len(raw) // 60)):
        file.write_bytes(raw[:end])
        with pytest.raises(CorruptFile):
            open_model(folder)


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_tensors_that_do_not_fit_the_config_are_named_with_both_shapes(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    reweigh(folder, lambda w: w.update({"transformer.ln_f.weight": torch.ones(9)}))
    with pytest.raises(CorruptFile, match=r"transformer\.ln_f\.weight of shape \[8\], and the weights hold \[9\]"):
        open_model(folder)
    folder = saved(tmp_path / "b")
    reweigh(folder, lambda w: w.pop("transformer.h.1.mlp.c_fc.bias"))
    with pytest.raises(CorruptFile, match=r"h\.1\.mlp\.c_fc\.bias of shape \[12\], but it is not in the weights"):
        open_model(folder)
    folder = saved(tmp_path / "c")
    reweigh(folder, lambda w: w.update({"transformer.h.2.ln_1.weight": torch.ones(8)}))
    with pytest.raises(
        CorruptFile, match=r"the weights hold transformer\.h\.2\.ln_1\.weight of shape \[8\], which config"
    ):
        open_model(folder)
    folder = saved(tmp_path / "d")
    reweigh(folder, lambda w: w.update({"transformer.ln_f.weight": torch.ones(8, dtype=torch.int8)}))
    with pytest.raises(BadInput, match=r"stored as I8; supported: F64, F32, F16, BF16"):
        open_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    folder = saved(tmp_path)
    name = "transformer.h.1.mlp.c_fc.weight"
    reweigh(folder, lambda w: w[name].view(-1)[-1].fill_(value))
    with pytest.raises(CorruptFile, match=rf"holds {name} with the value {value}"):
        open_model(folder)
    reweigh(folder, lambda w: w[name].fill_(3e38))  # the sum is infinite, no value is
    open_model(folder)
    model = build(GPT2)
    with torch.no_grad():
        model.get_parameter("norm.bias")[0] = value
    with pytest.raises(Diverged, match=rf"norm.bias has the value {value}, so the model is not saved"):
        save_model(tmp_path / "bad", model, None, ModelCard())
    assert not (tmp_path / "bad").exists()


def test_minus_infinity_is_the_logarithm_of_zero_in_models_of_probabilities() -> None:
    log_probs = torch.tensor([0.0, -float("inf")])
    assert non_finite_value(log_probs) == -float("inf")
    assert non_finite_value(log_probs, log_probabilities=True) is None
    assert non_finite_value(-log_probs, log_probabilities=True) == float("inf")
    assert non_finite_value(torch.tensor([1, 2])) is None


def test_a_folder_of_ours_that_changed_is_refused_and_opens_without_its_entry(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", build(GPT2, seed=0), None, ModelCard())
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(CorruptFile, match=r"model\.safetensors has changed since it was saved"):
        open_model(folder)
    listed = json.loads((folder / "checksums.json").read_text())
    del listed["files"]["model.safetensors"]
    (folder / "checksums.json").write_text(json.dumps(listed))
    open_model(folder)
    update_model_card(folder, ModelCard(name="renamed"))
    assert open_model(folder).card.name == "renamed"
    (folder / "README.md").write_text("notes of mine")
    with pytest.warns(ModelWarning, match=r"README\.md has changed since it was saved"):
        assert open_model(folder).note == "README.md has changed since it was saved"


def test_a_tied_unembedding_may_be_stored_twice_if_equal(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    reweigh(folder, lambda w: w.update({"lm_head.weight": w["transformer.wte.weight"].clone()}))
    open_model(folder)
    reweigh(folder, lambda w: w.update({"lm_head.weight": w["transformer.wte.weight"] + 1}))
    assert open_model(folder).model.config == replace(GPT2, tie_embeddings=False)  # as transformers unties it


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    folder = saved(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted()))
    with pytest.raises(
        BadInput, match=r"pytorch_model\.bin, a pickle, which can run code .*AutoModelForCausalLM.*save_pretrained"
    ):
        open_model(folder)
    assert not (tmp_path / "ran").exists()
    (folder / "pytorch_model.bin").rename(folder / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(BadInput, match=r"pytorch_model-00001-of-00002\.bin, a pickle, which can run code"):
        open_model(folder)
    (folder / "pytorch_model-00001-of-00002.bin").rename(folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(BadInput, match=r"holds no model\.safetensors"):
        open_model(folder)


@pytest.mark.parametrize(
    "place", ["../model.safetensors", "/etc/passwd", "sub/x.safetensors", ".x.safetensors", "x.bin"]
)
def test_an_index_may_not_point_out_of_its_folder(tmp_path: Path, place: str) -> None:
    folder = save_model(tmp_path / "model", build(GPT2), None, ModelCard(), shard_bytes=500)
    (folder / "checksums.json").unlink()
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["transformer.ln_f.bias"] = place
    file.write_text(json.dumps(index))
    with pytest.raises(CorruptFile, match="which is not a file of its own folder"):
        open_model(folder)


def test_an_index_that_disagrees_with_its_files_is_corrupt(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", build(GPT2), None, ModelCard(), shard_bytes=500)
    (folder / "checksums.json").unlink()
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    first = index["weight_map"].pop("transformer.ln_f.bias")
    file.write_text(json.dumps(index))
    with pytest.raises(CorruptFile, match=r"transformer\.ln_f\.bias is in the files and not in the index"):
        open_model(folder)
    (folder / first).unlink()
    with pytest.raises(CorruptFile, match="does not exist"):
        open_model(folder)
