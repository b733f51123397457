"""Folders as they are published open here with the outputs of transformers, and no valid one is called corrupt."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from published_configs import BERT, GPT2, LLAMA, MARIAN, MISTRAL, PHI3, PUBLISHED, QWEN3, T5, ConfigJSON, without
from safetensors.torch import load_file, save_file
from torch import Tensor

from clearstory.errors import BadInput, ClearstoryError, CorruptFile, ModelWarning, UnknownName
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.hf.config_json import HF_ARCHITECTURES, detect_format
from clearstory.formats.hf.declared_keys import GENERATION_KEYS, METADATA_KEYS, OTHER_CLASSES_KEYS
from clearstory.formats.lora.adapters import save_adapter
from clearstory.models.base import TokenBatch
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.lora import adapt
from clearstory.text.train_tokenizer import train_tokenizer

transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")

SAMPLES: dict[str, ConfigJSON] = {
    "GPT2LMHeadModel": GPT2, "LlamaForCausalLM": LLAMA, "MistralForCausalLM": MISTRAL, "Phi3ForCausalLM": PHI3,
    "Qwen3ForCausalLM": QWEN3, "BertForMaskedLM": BERT, "T5ForConditionalGeneration": T5, "MarianMTModel": MARIAN,
}  # fmt: skip
"""A config.json of each configuration class."""

IDS = torch.tensor([[5, 17, 3, 42, 8, 29, 11, 5, 50, 2], [7, 7, 31, 2, 19, 4, 44, 13, 1, 9]])


def class_of(config: ConfigJSON) -> Any:
    """The class of transformers for a config.json."""
    return getattr(transformers, detect_format(config).name)


def written(folder: Path, config: ConfigJSON, class_name: str | None = None) -> dict[str, Tensor]:
    """Write a folder with this very config.json and random weights, and return the weights."""
    torch.manual_seed(0)
    kind = getattr(transformers, class_name) if class_name else class_of(config)
    model = kind(kind.config_class.from_dict(config))
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(torch.randn(weight.shape) * 0.1 * ("embed_positions" not in name))  # those are sinusoids
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink(missing_ok=True)
    return load_file(folder / "model.safetensors")


def rewrite(folder: Path, weights: dict[str, Tensor], **keys: Any) -> None:
    """Replace the weights of a folder and set keys of its config.json."""
    save_file({name: tensor.clone().contiguous() for name, tensor in weights.items()}, folder / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))


def quietly(folder: Path) -> Any:
    """The opened folder, without the warning about ignored keys."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        return open_model(folder)


@torch.no_grad()
def outputs(opened: Any) -> Tensor:
    """Logits here; hidden states of an encoder without an output layer."""
    model = opened.model
    if has_capability(model, Capability.SOURCE):
        return opened.logits(IDS, source=IDS.flip(1).tolist())  # type: ignore[no-any-return]
    if not has_capability(model, Capability.BIDIRECTIONAL):
        return opened.logits(IDS)  # type: ignore[no-any-return]
    hidden = model.encode(TokenBatch(IDS))
    return model.logits(hidden) if model.config.mlm_transform else hidden  # type: ignore[no-any-return]


@torch.no_grad()
def outputs_there(folder: Path, class_name: str | None = None) -> Tensor:
    """The same of transformers."""
    config = json.loads((folder / "config.json").read_text())
    kind = getattr(transformers, class_name) if class_name else class_of(config)
    model = kind.from_pretrained(folder, config=kind.config_class.from_dict(config), dtype=torch.float32).eval()
    if model.config.is_encoder_decoder:
        return model(input_ids=IDS.flip(1), decoder_input_ids=IDS).logits  # type: ignore[no-any-return]
    out = model(IDS)
    return out.logits if hasattr(out, "logits") else out.last_hidden_state  # type: ignore[no-any-return]


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max() / theirs.abs().max()) <= 2e-5


QUICK = ("distilgpt2", "llama-1", "llama-3.2", "smollm2", "mistral-0.1", "phi-4-mini", "qwen3-window", "bert-chinese",
         "bert-without-model-type", "t5-small", "opus-mt-2020")  # fmt: skip


def some(cases: Iterable[str], *quick: str) -> list[Any]:
    """All cases, those that are not quick marked as slow."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in cases]


@pytest.mark.parametrize("name", some(PUBLISHED, *QUICK))
def test_published_configs_open_with_the_same_logits(name: str, tmp_path: Path) -> None:
    config = PUBLISHED[name]
    written(tmp_path / "theirs", config)
    opened = quietly(tmp_path / "theirs")
    theirs = outputs_there(tmp_path / "theirs")
    assert_equal(outputs(opened), theirs)
    # Saved again, it is a model of the same class.
    saved = save_model(tmp_path / "ours", opened.model, None, opened.card)
    named = json.loads((saved / "config.json").read_text())["architectures"]
    assert named == [detect_format(config).name]
    assert_equal(outputs_there(saved), theirs)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_declared_key_is_known(name: str) -> None:
    """A newer transformers may declare keys that change numbers: those must be added to the tables."""
    config_class = getattr(transformers, name).config_class
    declared = {key for key in vars(config_class()) if not key.startswith("_")} | config_class.attribute_map.keys()
    declared |= set(inspect.signature(config_class).parameters) - {"kwargs"}
    declared |= set(inspect.signature(transformers.PretrainedConfig).parameters) - {"kwargs"}
    known = HF_ARCHITECTURES[name].known_keys | set(METADATA_KEYS.keys) | set(GENERATION_KEYS.keys) | OTHER_CLASSES_KEYS
    assert not declared - known


def test_every_key_of_generation_is_known() -> None:
    declared = set(transformers.GenerationConfig().to_dict())
    assert declared <= set(METADATA_KEYS.keys) | set(GENERATION_KEYS.keys)


@pytest.mark.parametrize("name", SAMPLES)
def test_absent_keys_have_the_defaults_of_the_configuration_class(name: str) -> None:
    """Each key is deleted in turn; the class's own reading of the rest, every key spelled out, must be ours."""
    config_class = getattr(transformers, name).config_class
    form = HF_ARCHITECTURES[name]
    for default in form.defaults:
        assert default in config_class().to_dict() or default in ("sliding_window",), default
    spelled_out = {**SAMPLES[name], "architectures": [name]}
    for key in sorted(form.known_keys & spelled_out.keys() - {"n_positions", "pad_token_id", "decoder_start_token_id"}):
        rest = without(spelled_out, key)
        try:
            theirs = config_class.from_dict(rest).to_dict() | {"architectures": [name]}
        except (ValueError, TypeError, StrictDataclassError):  # the default does not fit the other sizes
            continue
        theirs |= {alias: rest[alias] for alias in ("decoder_start_token_id",) if alias in rest}
        theirs |= {"n_positions": 32} if name == "T5ForConditionalGeneration" else {}
        try:
            expected = form.config_to_native(theirs)
        except ClearstoryError:
            with pytest.raises(ClearstoryError):
                form.config_to_native(rest)
            continue
        assert form.config_to_native(rest) == expected, key


SMALL_KEYS = {
    "GPT2LMHeadModel": ("activation_function", "layer_norm_epsilon", "tie_word_embeddings", "n_inner"),
    "LlamaForCausalLM": ("hidden_act", "rms_norm_eps", "rope_theta", "tie_word_embeddings", "num_key_value_heads"),
    "MistralForCausalLM": ("hidden_act", "rms_norm_eps", "rope_theta", "tie_word_embeddings", "sliding_window"),
    "Phi3ForCausalLM": ("hidden_act", "rms_norm_eps", "rope_theta", "sliding_window", "num_key_value_heads"),
    "Qwen3ForCausalLM": ("hidden_act", "rms_norm_eps", "rope_theta", "head_dim", "max_window_layers"),
    "BertForMaskedLM": ("hidden_act", "layer_norm_eps", "type_vocab_size", "max_position_embeddings"),
    "T5ForConditionalGeneration": ("layer_norm_epsilon", "num_decoder_layers", "relative_attention_num_buckets"),
    "MarianMTModel": ("activation_function", "scale_embedding", "max_position_embeddings"),
}
"""Keys that change numbers in a tiny model, and not its size much."""


@pytest.mark.parametrize("name", some(SMALL_KEYS, "MistralForCausalLM", "Qwen3ForCausalLM", "BertForMaskedLM"))
def test_without_a_key_the_logits_are_those_of_the_default(name: str, tmp_path: Path) -> None:
    # All at once: another default of any of them would change the logits.
    config = without({**SAMPLES[name], "architectures": [name]}, *SMALL_KEYS[name])
    written(tmp_path, config)
    assert_equal(outputs(quietly(tmp_path)), outputs_there(tmp_path))


def test_undeclared_keys_are_noted_and_keys_of_other_classes_refused(tmp_path: Path) -> None:
    weights = written(tmp_path, LLAMA)
    before = outputs(open_model(tmp_path))
    inert = {
        "neftune_noise_alpha": 5, "output_past": True, "max_sequence_length": 4096, "pruned_heads": {},
        "_flash_attn_2_enabled": True, "kv_cache_scheme": {"bits": 8}, "unsloth_fixed": True, "xla_device": "tpu",
    }  # fmt: skip
    rewrite(tmp_path, weights, **inert)
    with pytest.warns(ModelWarning, match=r"are ignored: _flash_attn_2_enabled = True, .*neftune_noise_alpha = 5"):
        opened = open_model(tmp_path)
    assert opened.note is not None
    assert "pruned_heads" not in opened.note
    assert torch.equal(outputs(opened), before)
    others: ConfigJSON = {
        "num_local_experts": 8, "logit_scale": 0.5, "pruned_heads": {"0": [1]}, "qk_layernorm": True,
        "quantization_config": {"bits": 4}, "is_encoder_decoder": True, "sliding_window": 5,
    }  # fmt: skip
    for key, value in others.items():
        rewrite(tmp_path, weights, **{**dict.fromkeys(inert), key: value})
        with pytest.raises(BadInput, match=f"config.json has {key} = "):
            open_model(tmp_path)
        rewrite(tmp_path, weights, **{key: None})


@pytest.mark.parametrize(
    "name", ["Qwen2ForCausalLM", "GPTNeoXForCausalLM", "LlamaForQuestionAnswering", "T5EncoderModel", "GPT2Modl"]
)
def test_what_is_not_supported_is_told_what_is(name: str) -> None:
    with pytest.raises(UnknownName) as caught:
        detect_format({"architectures": [name], "model_type": "llama"})
    assert str(caught.value).startswith(f"config.json names the architecture '{name}', which is not supported; ")
    assert "did you mean" not in str(caught.value)
    for kind in ("decoders: GPT2LMHeadModel, ", "encoders: BertModel, ", "encoder-decoders: T5For"):
        assert kind in str(caught.value)


BARE = {
    "GPT2Model": GPT2,
    "GPT2DoubleHeadsModel": GPT2,
    "LlamaModel": {**LLAMA, "tie_word_embeddings": True},
    "MistralModel": {**MISTRAL, "tie_word_embeddings": True},
    "Qwen3Model": QWEN3,
    "T5Model": T5,
    "MarianModel": MARIAN,
}


@pytest.mark.parametrize("name", some(BARE, "GPT2DoubleHeadsModel", "MistralModel", "MarianModel"))
def test_bare_models_open_with_the_output_layer_that_is_tied(name: str, tmp_path: Path) -> None:
    written(tmp_path, {**BARE[name], "architectures": [name]}, name)
    # What transformers makes of the same weights with its language-model head.
    assert_equal(outputs(quietly(tmp_path)), outputs_there(tmp_path))


@pytest.mark.parametrize("name", ["LlamaModel", "MistralModel", "Phi3Model"])
def test_a_bare_model_without_an_output_layer_is_not_called_corrupt(name: str, tmp_path: Path) -> None:
    config = {"LlamaModel": LLAMA, "MistralModel": MISTRAL, "Phi3Model": PHI3}[name]
    written(tmp_path, {**config, "architectures": [name]}, name)
    with pytest.raises(BadInput, match=r"requires lm_head\.weight of shape \[61, 24\], .* without its output layer"):
        open_model(tmp_path)


@pytest.mark.parametrize("config", [LLAMA, MISTRAL, PHI3, QWEN3])
def test_buffers_of_older_files_are_ignored(config: ConfigJSON, tmp_path: Path) -> None:
    weights = written(tmp_path, config)
    before = outputs(open_model(tmp_path))
    buffers = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(3) for layer in range(2)}
    rewrite(tmp_path, {**weights, **buffers, "model.rotary_emb.inv_freq": torch.ones(3)})
    assert torch.equal(outputs(open_model(tmp_path)), before)


@pytest.mark.parametrize(
    "wrapper", some(["module.", "_orig_mod.", "model.", "base_model.model.", "module._orig_mod."], "model.")
)
@pytest.mark.parametrize("config", [GPT2, LLAMA, BERT, T5])
def test_prefixes_of_wrappers_are_removed(config: ConfigJSON, wrapper: str, tmp_path: Path) -> None:
    weights = written(tmp_path, config)
    before = outputs(quietly(tmp_path))
    rewrite(tmp_path, {f"{wrapper}{name}": tensor for name, tensor in weights.items()})
    assert torch.equal(outputs(quietly(tmp_path)), before)


def test_gpt2s_masks_are_ignored_with_and_without_the_prefix(tmp_path: Path) -> None:
    weights = written(tmp_path, GPT2)
    before = outputs(open_model(tmp_path))
    masks = {f"transformer.h.{layer}.attn.bias": torch.ones(1, 1, 32, 32) for layer in range(2)}
    masks |= {f"transformer.h.{layer}.attn.masked_bias": torch.tensor(-1e4) for layer in range(2)}
    weights |= masks
    for prefix in ("transformer.", "", "model."):
        rewrite(tmp_path, {prefix + name.removeprefix("transformer."): each for name, each in weights.items()})
        assert torch.equal(outputs(open_model(tmp_path)), before), prefix


def test_a_tied_matrix_may_be_stored_under_its_second_name(tmp_path: Path) -> None:
    second = {"model.embed_tokens": "lm_head", "transformer.wte": "lm_head", "shared": "decoder.embed_tokens",
              "model.shared": "model.encoder.embed_tokens"}  # fmt: skip
    for number, config in enumerate((QWEN3, GPT2, T5, MARIAN)):
        weights = written(tmp_path / str(number), config)
        before = outputs(quietly(tmp_path / str(number)))
        [first] = [name for name in second if f"{name}.weight" in weights]
        weights[f"{second[first]}.weight"] = weights.pop(f"{first}.weight")
        rewrite(tmp_path / str(number), weights)
        assert torch.equal(outputs(quietly(tmp_path / str(number))), before)


def test_an_output_layer_that_differs_is_untied_as_in_transformers(tmp_path: Path) -> None:
    for number, config in enumerate((QWEN3, GPT2, {**LLAMA, "tie_word_embeddings": True}, T5)):
        weights = written(tmp_path / str(number), config)
        weights["lm_head.weight"] = torch.randn(61, 24, generator=torch.Generator().manual_seed(1))
        rewrite(tmp_path / str(number), weights)
        opened = quietly(tmp_path / str(number))
        assert not opened.model.config.tie_embeddings
        assert_equal(outputs(opened), outputs_there(tmp_path / str(number)))


@pytest.mark.parametrize("biases", [{"attention_bias": True}, {"mlp_bias": True}])
def test_llamas_biases_of_one_kind_alone(biases: dict[str, bool], tmp_path: Path) -> None:
    written(tmp_path / "theirs", {**LLAMA, **biases})
    opened = open_model(tmp_path / "theirs")
    assert_equal(outputs(opened), outputs_there(tmp_path / "theirs"))
    saved = save_model(tmp_path / "ours", opened.model, None, opened.card)
    assert_equal(outputs_there(saved), outputs(opened))


def test_berts_class_without_architectures_follows_from_the_weights(tmp_path: Path) -> None:
    config = without(BERT, "architectures", "model_type")
    for number, name in enumerate(("BertForMaskedLM", "BertForPreTraining", "BertModel")):
        folder = tmp_path / str(number)
        written(folder, {**config, "architectures": [name]}, name)
        (folder / "config.json").write_text(json.dumps(config))
        opened = open_model(folder)
        assert opened.model.config.mlm_transform == (name != "BertModel")
        theirs = getattr(transformers, name).from_pretrained(folder, config=transformers.BertConfig(**config)).eval()
        with torch.no_grad():
            out = theirs(IDS)
        expected = out.last_hidden_state if name == "BertModel" else out[0]
        assert_equal(outputs(opened), expected)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    weights = written(tmp_path, LLAMA)
    cases: list[tuple[dict[str, Tensor], type[ClearstoryError], str]] = [
        ({**weights, "score.weight": torch.ones(2, 24)}, BadInput, r"hold score\.weight of shape \[2, 24\], which"),
        (
            {**weights, "model.layers.0.self_attn.q_proj.bias": torch.ones(24)}, BadInput,
            r"q_proj\.bias of shape \[24\], which .*LlamaForCausalLM with this config\.json has no such biases",
        ),
        (
            {name: each for name, each in weights.items() if "layers.1." not in name}, CorruptFile,
            r"not in the weights; 9 of 21 required tensors are missing; copy the whole folder",
        ),
    ]  # fmt: skip
    for changed, kind, sentence in cases:
        rewrite(tmp_path, changed)
        with pytest.raises(kind, match=sentence):
            open_model(tmp_path)


def test_the_longest_text_is_the_context(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bpe:280", ["a text"])
    for number, (known, expected) in enumerate(((None, 32), (10**30, 32), (16, 16))):
        folder = tmp_path / str(number)
        written(folder / "theirs", {**GPT2, "vocab_size": tokenizer.vocab})
        config = {} if known is None else {"model_max_length": known}
        replace(tokenizer, config={**tokenizer.config, **config}).save(folder / "theirs")
        opened = open_model(folder / "theirs")
        saved = save_model(folder / "ours", opened.model, opened.tokenizer, opened.card)
        theirs = transformers.AutoTokenizer.from_pretrained(saved)
        assert theirs.model_max_length == expected
        assert len(theirs("a text " * 50, truncation=True)["input_ids"]) == expected


def test_an_adapter_of_an_opened_model_has_the_names_of_its_class(tmp_path: Path) -> None:
    written(tmp_path / "base", MISTRAL)  # Phi3ForCausalLM could hold the same weights, under other names
    opened = open_model(tmp_path / "base")
    adapted = adapt(opened.model, rank=2, targets=("query", "down"), seed=1)
    folder = save_adapter(tmp_path / "adapter", adapted, tmp_path / "base", None, opened.card)
    names = set(load_file(folder / "adapter_model.safetensors"))
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in names
    assert torch.equal(outputs(open_model(folder)), outputs(opened))
