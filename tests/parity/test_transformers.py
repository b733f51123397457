"""Decoder folders open here and in transformers with the same outputs. All parameters are randomized first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clearstory.formats.folders import OpenedModel, open_model, save_model
from clearstory.formats.hf.config_json import choose_format
from clearstory.formats.model_card import ModelCard
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.families import PRESETS
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.decoder import Transformer
from clearstory.models.transformer.presets import CLEAR, GPT2, NANOGPT_CHAR, PUBLISHED
from clearstory.models.transformer.sizing import parameter_count
from clearstory.text.train_tokenizer import train_tokenizer

transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")

TINY = TransformerConfig(
    vocab=61, context=64, width=24, layers=3, heads=4, kv_heads=4, head_dim=6, intermediate_size=40
)
LLAMA = replace(TINY, norm="rms", positions="rotary", gated=True, bias=False, activation="silu", tie_embeddings=False)

GEMMA3 = replace(
    LLAMA, norm="rms_unit_offset", sandwich_norm=True, embed_scale=True, qk_norm=True, activation="gelu_tanh",
    tie_embeddings=True, head_dim=8, kv_heads=2, sliding_window=5, global_interval=2, local_rope_theta=100.0,
    rope_theta=1000.0,
)  # fmt: skip

# Each class, and each switch that its row of the table carries.
CASES: dict[str, TransformerConfig] = {
    "gpt2": TINY,
    "gpt2-untied-relu": replace(TINY, tie_embeddings=False, activation="relu"),
    "gpt2-gelu": replace(TINY, activation="gelu", intermediate_size=96),
    "gpt2-no-bias": replace(TINY, bias=False),
    "gpt2-silu-eps": replace(TINY, activation="silu", norm_eps=1e-3),
    "llama": LLAMA,
    "llama-grouped-tied": replace(LLAMA, kv_heads=2, tie_embeddings=True, rope_theta=500.0),
    "llama-bias-gelu": replace(LLAMA, bias=True, activation="gelu_tanh"),
    "llama-wide-heads": replace(LLAMA, head_dim=10, kv_heads=1, norm_eps=1e-3),
    # Of 16 tokens: the angles of the first pair stay, of the last are slowed, and one is between the two.
    "llama3.1": replace(LLAMA, rope_theta=8.0, rope_factor=8.0, rope_original_context=16),
    "llama-linear": replace(LLAMA, rope_theta=500.0, rope_factor=4.0, kv_heads=2),
    "qwen3": replace(LLAMA, qk_norm=True, kv_heads=2, tie_embeddings=True),
    "qwen3-window": replace(LLAMA, qk_norm=True, sliding_window=5, head_dim=8),
    "phi3": replace(LLAMA, sliding_window=7),
    "phi3-grouped-tied": replace(LLAMA, sliding_window=4, kv_heads=2, tie_embeddings=True),
    "mistral": replace(LLAMA, sliding_window=6, head_dim=8, kv_heads=2),
    "gemma3": GEMMA3,
    "gemma3-linear-untied": replace(
        GEMMA3, rope_factor=8.0, attention_scale=24**-0.5, tie_embeddings=False, activation="silu", norm_eps=1e-3
    ),
    "gemma3-all-local": replace(GEMMA3, global_interval=6),
    # The presets as they are, but for their vocabulary and depth.
    "preset-gpt2": replace(GPT2, vocab=61, layers=2),
    "preset-clear": replace(CLEAR, vocab=61),
    "preset-nanogpt-char": NANOGPT_CHAR,
}

CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "llama3.1": "LlamaForCausalLM",
    "llama-linear": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "mistral": "MistralForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "preset-gpt2": "GPT2LMHeadModel",
    "preset-clear": "Qwen3ForCausalLM",
    "preset-nanogpt-char": "GPT2LMHeadModel",
}


def shake(model: nn.Module, by: float = 0.1) -> None:
    """Add noise to every parameter: initial biases are 0 and norm weights 1, which would hide that they are lost."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator).to(weight.dtype) * by)


def ours(config: TransformerConfig, dtype: torch.dtype = torch.float32) -> Transformer:
    model = build(config, seed=0).to(dtype).eval()
    shake(model)
    return model


def rows(config: TransformerConfig, count: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, config.vocab, (3, min(count, config.context)), generator=generator)


def theirs(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    model, said = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    assert not any(said.values()), f"transformers is not content with our names: {said}"
    return model.eval()


@torch.no_grad()
def layers_of_ours(model: Transformer, ids: Tensor) -> list[Tensor]:
    """What each block hands on, the last norm, and the logits."""
    heard: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda module, inside, out: heard.append(out))
        for block in [*list(model.blocks)[:-1], model.norm]
    ]
    hidden, _ = model.forward(TokenBatch(ids))
    for hook in hooks:
        hook.remove()
    return [*heard, model.logits(hidden)]


@torch.no_grad()
def layers_of_theirs(model: Any, ids: Tensor) -> list[Tensor]:
    """The same places over there: their list begins with the embeddings and ends after the last norm."""
    out = model(ids, output_hidden_states=True)
    return [*out.hidden_states[1:], out.logits]


def worst(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference, as a share of its layer's largest value."""
    assert len(a) == len(b)
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(a, b, strict=True))


def in_float64(model: Any, mine: Transformer) -> None:
    """Their root-mean-square norms and rotary angles are computed in float32 whatever the weights are.

    Norms are replaced by torch's, which float32 parity has vouched for, and our angles by theirs.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                gemma = type(child).__name__.startswith("Gemma3")
                eps = child.eps if gemma else child.variance_epsilon
                norm = nn.RMSNorm(child.weight.shape[0], eps=eps, dtype=torch.float64)
                norm.weight = nn.Parameter(1 + child.weight) if gemma else child.weight
                setattr(module, name, norm)
    if mine.rotary is not None:
        c = mine.config
        places = torch.arange(c.context)[None]
        tables = {"full_attention": mine.rotary, "sliding_attention": mine.local_rotary}
        for kind, table in tables.items():
            if table is not None and (mine.local_rotary is None or kind in model.config.layer_types):
                kinds = () if mine.local_rotary is None else (kind,)
                cos, sin = model.model.rotary_emb(torch.zeros(1, dtype=torch.float64), places, *kinds)
                table.cos, table.sin = cos[0, :, : c.head_dim // 2], sin[0, :, : c.head_dim // 2]


@pytest.mark.parametrize("name", CASES)
def test_our_folder_opens_in_transformers_with_the_same_numbers(name: str, tmp_path: Path) -> None:
    config = CASES[name]
    if name in CLASSES:
        assert choose_format(config)[0].name == CLASSES[name]
    model = ours(config)
    folder = save_model(tmp_path / "model", model, None, ModelCard(name=name))
    oracle = theirs(folder)
    assert type(oracle).__name__ == choose_format(config)[0].name
    ids = rows(config)
    difference = worst(layers_of_ours(model, ids), layers_of_theirs(oracle, ids))
    print(f"measured {name}: fp32 {difference:.1e}")  # shown with -rP
    assert difference <= 1e-5

    again = open_model(folder)
    assert again.model.config == config
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[key]), key

    wide = ours(config, torch.float64)
    oracle = theirs(save_model(tmp_path / "wide", wide, None, ModelCard()), torch.float64)
    in_float64(oracle, wide)
    difference = worst(layers_of_ours(wide, ids), layers_of_theirs(oracle, ids))
    print(f"measured {name}: fp64 {difference:.1e}")  # shown with -rP
    assert difference <= 1e-9


THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "gpt2-inner": ("GPT2", {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 64, "n_inner": 50}),
    "gpt2-untied": ("GPT2", {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 64, "tie_word_embeddings": False}),
    "llama": ("Llama", {"num_key_value_heads": 2}),
    "llama-bias-tied": ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama3.1": (
        "Llama",
        {
            "rope_parameters": {
                "rope_theta": 8.0,
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 8}),
    "qwen3-window": ("Qwen3", {"head_dim": 8, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0}),
    "phi3": ("Phi3", {"sliding_window": 5, "num_key_value_heads": 2}),
    "phi3-no-window": ("Phi3", {}),
    "mistral": ("Mistral", {"sliding_window": 5, "num_key_value_heads": 2, "head_dim": 8}),
    "gemma3": (
        "Gemma3",
        {
            "sliding_window": 5,
            "head_dim": 8,
            "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_their_folder_opens_here_with_the_same_numbers(name: str, tmp_path: Path) -> None:
    family, settings = THEIRS[name]
    shape = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 64,
    }
    common = {"vocab_size": 61, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    shape = {} if family == "GPT2" else shape
    config = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(family, f"{family}Config"))(
        **{**shape, **common, **settings}
    )
    kind = {"GPT2": "GPT2LMHeadModel"}.get(family, f"{family}ForCausalLM")
    oracle = getattr(transformers, kind)(config).eval()
    shake(oracle)
    oracle.save_pretrained(tmp_path / "theirs")
    opened = open_model(tmp_path / "theirs")
    ids = rows(opened.model.config)
    difference = worst(layers_of_ours(opened.model, ids), layers_of_theirs(oracle, ids))
    print(f"measured {name}: fp32 {difference:.1e}")  # shown with -rP
    assert difference <= 1e-5

    # And back: what they would open again is what they saved.
    saved = save_model(tmp_path / "ours", opened.model, None, opened.card)
    back = theirs(saved)
    for key, tensor in oracle.state_dict().items():
        if type(back) is type(oracle):
            assert torch.equal(tensor, back.state_dict()[key]), key
    assert worst(layers_of_theirs(back, ids), layers_of_theirs(oracle, ids)) <= 1e-5


@torch.no_grad()
def greedy(opened: OpenedModel, prompt: list[int], count: int) -> list[int]:
    """The likeliest token, again and again, with a cache."""
    state, new, out = opened.model.init_state(), prompt, []
    for _ in range(count):
        hidden, state = opened.model.forward(TokenBatch.from_sequences([new]), state)
        new = [int(opened.model.logits(hidden[:, -1]).argmax())]
        out += new
    return out


@pytest.mark.parametrize(
    "name",
    ["gpt2", "gpt2-no-bias", "llama-grouped-tied", "qwen3", "qwen3-window", "phi3", "mistral", "gemma3-linear-untied"],
)
def test_fifty_greedy_tokens_are_equal(name: str, tmp_path: Path) -> None:
    config = CASES[name]
    model = ours(config)
    shake(model, 0.5)  # or a model with a tied unembedding says one word for ever
    folder = save_model(tmp_path / "model", model, None, ModelCard())
    prompt = rows(config)[0, :8].tolist()
    oracle = theirs(folder)
    out = oracle.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, 8), do_sample=False, max_new_tokens=50)
    mine = greedy(open_model(folder), prompt, 50)
    assert mine == out[0, 8:].tolist()
    assert len(set(mine)) > 3, "a model that repeats one token proves little"


@pytest.mark.parametrize("name", ["bytes", "bpe"])
def test_their_tokenizer_of_our_folder_gives_the_same_ids(name: str, tmp_path: Path) -> None:
    texts = [
        "Call me Ishmael. Some years ago—never mind how long precisely—",
        "naïve café, 東京 🙂\n\ttab  two spaces",
        "",
    ]
    tokenizer = train_tokenizer("bytes", []) if name == "bytes" else train_tokenizer("bpe:300", iter(texts * 20))
    config = replace(TINY, vocab=tokenizer.vocab + 3)
    folder = save_model(tmp_path / "model", ours(config), tokenizer, ModelCard())
    oracle = transformers.AutoTokenizer.from_pretrained(folder)
    opened = open_model(folder)
    assert opened.tokenizer is not None
    for text in texts:
        assert (
            oracle(text, add_special_tokens=False)["input_ids"]
            == opened.tokenizer.encode(text)
            == tokenizer.encode(text)
        )
        assert oracle.decode(tokenizer.encode(text)) == text
    model = theirs(folder)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == model.config.eos_token_id


def test_biases_trained_with_transformers_are_kept(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", ours(CASES["gpt2-no-bias"]), None, ModelCard(name="kept"))
    oracle = theirs(folder)
    shake(oracle)
    oracle.save_pretrained(tmp_path / "tuned")
    opened = open_model(tmp_path / "tuned")
    assert opened.model.config == replace(CASES["gpt2-no-bias"], bias=True)
    assert opened.card.name == "kept"
    ids = rows(opened.model.config)
    assert worst(layers_of_ours(opened.model, ids), layers_of_theirs(oracle, ids)) <= 1e-5


SIZES = {
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "gemma3-270m": 268_098_176,
    "gemma3-1b": 999_885_952,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-8b": 8_030_261_248,
    "llama3.1-70b": 70_553_706_496,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "phi3-mini": 3_821_079_552,
    "phi3-medium": 13_960_238_080,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    # 12Ld² + 13Ld + Vd + Td + 2d with L = 96, d = 12,288, V = 50,257, T = 2,048
    "gpt3-175b": 12 * 96 * 12_288**2 + 13 * 96 * 12_288 + 50_257 * 12_288 + 2_048 * 12_288 + 2 * 12_288,
}


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes_to_the_digit(name: str) -> None:
    config = PRESETS[name]
    model = build(config, device="meta")
    assert sum(weight.numel() for weight in model.parameters()) == SIZES[name] == parameter_count(config)
    # And as the class of transformers that carries it counts, from the config.json that we write.
    said = choose_format(config)[0].config_from_native(config)
    # A class's own default of the padding id may lie outside the vocabulary.
    oracle_config = transformers.AutoConfig.for_model(**said, pad_token_id=None)
    with torch.device("meta"):
        oracle = transformers.AutoModelForCausalLM.from_config(oracle_config)
    assert type(oracle).__name__ == said["architectures"][0]
    assert sum(weight.numel() for weight in oracle.parameters()) == SIZES[name]


def test_every_published_preset_has_a_reference_size() -> None:
    assert set(PUBLISHED) <= set(SIZES)
