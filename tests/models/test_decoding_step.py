"""A decoding step in one call: the numbers of PyTorch's blocks for every variant of a decoder; states are values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.inference_model import inference_model
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.decoding_step import DecodingStep

pytestmark = pytest.mark.usefixtures("compiled_kernels")

LLAMA = TransformerConfig(
    vocab=29, context=300, width=40, layers=2, heads=4, kv_heads=2, head_dim=10, intermediate_size=52, norm="rms",
    positions="rotary", gated=True, bias=False, activation="silu", tie_embeddings=False,
)  # fmt: skip
GPT2 = replace(
    LLAMA, norm="layer", positions="learned", gated=False, bias=True, activation="gelu_tanh", tie_embeddings=True
)
VARIANTS = {
    "llama": LLAMA,
    "gpt2": GPT2,
    **{f"heads of {size}": replace(LLAMA, head_dim=size, layers=1) for size in (24, 32, 64, 80, 96, 128)},
    **{
        f"{heads} heads to {kv_heads}": replace(LLAMA, heads=heads, kv_heads=kv_heads, head_dim=64, layers=1)
        for heads, kv_heads in ((3, 3), (3, 1), (9, 3), (5, 1), (6, 1), (7, 1))
    },
    "heads of 7, without rotation": replace(LLAMA, head_dim=7, positions="none"),
    **{f"{name} gated": replace(LLAMA, activation=name) for name in ("gelu", "gelu_tanh", "relu")},
    **{f"{name}": replace(GPT2, activation=name) for name in ("gelu", "relu", "silu")},
    "post-norm": replace(GPT2, norm_first=False),
    "post-norm, rms": replace(LLAMA, norm_first=False),
    "layer norm, rotary": replace(LLAMA, norm="layer"),
    "layer norm without bias": replace(GPT2, bias=False),
    "qk_norm": replace(LLAMA, qk_norm=True),
    "qk_norm without rotation": replace(LLAMA, qk_norm=True, positions="none"),
    "sliding window": replace(LLAMA, sliding_window=5),
    "window of 1": replace(LLAMA, sliding_window=1),
    "biases": replace(LLAMA, bias=True),
    "attention scale": replace(LLAMA, attention_scale=0.4),
    "scaled rotation": replace(LLAMA, rope_factor=4.0, rope_original_context=8),
    "sinusoidal": replace(GPT2, positions="sinusoidal", embed_norm=True, embed_scale=True),
    "no positions": replace(GPT2, positions="none"),
    "hashed n-grams": replace(LLAMA, recall=(2, 3), recall_rows=40),
    "one layer of width 1": replace(GPT2, width=1, layers=1, heads=1, kv_heads=1, head_dim=2, intermediate_size=3),
}
LENGTHS = (7, 1, 12)
IDS = torch.randint(29, (3, 40), generator=torch.Generator().manual_seed(7))


def views(config: TransformerConfig, precision: Any = "fp32") -> tuple[Any, Any]:
    """A model with noise on every parameter, opened twice: with compiled steps and with blocks in PyTorch."""
    model, generator = build(config, seed=3).eval(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    native: Any = inference_model(model, precision)
    torch_blocks: Any = inference_model(model, precision)
    assert isinstance(native.base_model.step, DecodingStep)
    torch_blocks.base_model.step = None
    return native, torch_blocks


def after_prompts(view: Any) -> Any:
    """The state after three prompts of different lengths."""
    return view.forward(TokenBatch(IDS[:, : max(LENGTHS)], torch.tensor(LENGTHS)), view.init_state(3))[1]


def decoded(view: Any, state: Any, ids: Tensor) -> tuple[Tensor, Any]:
    """Hidden states of ids read one at a time, and the state after them."""
    found = []
    for each in ids.split(1, 1):
        hidden, state = view.forward(TokenBatch(each), state)
        found.append(hidden)
    return torch.cat(found, 1), state


def assert_close(found: Tensor, wanted: Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("name", VARIANTS)
def test_steps_are_those_of_the_blocks_in_pytorch(name: str) -> None:
    native, blocks = views(VARIANTS[name])
    ids = IDS[:, :20]
    found, state = decoded(native, after_prompts(native), ids)
    wanted, wanted_state = decoded(blocks, after_prompts(blocks), ids)
    assert_close(found, wanted)
    # Either form continues the other's cache.
    assert_close(decoded(blocks, state, ids[:, :3])[0], decoded(native, wanted_state, ids[:, :3])[0])
    # And one sequence alone has the numbers that it has beside others.
    alone = after_prompts(native).select([2])
    assert torch.equal(decoded(native, alone, ids[2:])[0], found[2:])


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_steps_in_other_precisions(precision: Any) -> None:
    native, blocks = views(replace(LLAMA, qk_norm=True, bias=True), precision)
    found, _ = decoded(native, after_prompts(native), IDS)
    # Inputs next to a half are rounded up by the one and down by the other, to 15 bits.
    tolerance = 1e-4 if precision == "fp16" else 2e-3
    assert_close(found, decoded(blocks, after_prompts(blocks), IDS)[0], tolerance)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_threads_change_nothing(precision: Any, two_threads: None) -> None:
    native, _ = views(LLAMA, precision)
    state = after_prompts(native)
    by_two = decoded(native, state, IDS[:, :5])[0]
    torch.set_num_threads(1)
    assert torch.equal(decoded(native, state, IDS[:, :5])[0], by_two)


@pytest.mark.parametrize("name", ["llama", "sliding window", "hashed n-grams"])
def test_a_state_that_is_continued_twice_is_copied(name: str) -> None:
    native, _ = views(VARIANTS[name])
    start = after_prompts(native)
    first, after_first = decoded(native, start, IDS[:, 5:9])
    kept = {key: value.clone() for key, value in after_first.tensors().items()}
    second, _ = decoded(native, start, IDS[:, 20:24])
    assert not torch.equal(first, second)
    assert all(torch.equal(value, kept[key]) for key, value in after_first.tensors().items())
    assert torch.equal(decoded(native, start, IDS[:, 5:9])[0], first)
    # Two rows of one cache in a single step: the second is copied before either is written.
    twice, _ = decoded(native, start.select([1, 1, 1]), IDS[[1, 0, 1], 5:9])
    assert torch.equal(twice[0], first[1])
    assert torch.equal(twice[2], first[1])
    joined = type(start).join([start.select([2]), start.select([0])])
    assert torch.equal(decoded(native, joined, IDS[[2, 0], 5:9])[0], first[[2, 0]])


def test_a_sequence_that_is_not_finite_leaves_the_others_as_they_are() -> None:
    native, _ = views(LLAMA)
    start = after_prompts(native)
    wanted, _ = decoded(native, start, IDS[:, :3])
    broken = start.select([0, 1, 2])
    row = broken.rows[1]
    row = replace(row, buffer=type(row.buffer)(row.buffer.data.clone(), row.kept))
    row.buffer.data[0, :, :, 0] = float("nan")
    found, _ = decoded(native, replace(broken, rows=(broken.rows[0], row, broken.rows[2])), IDS[:, :3])
    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2]], wanted[[0, 2]])


def test_scores_of_any_size() -> None:
    """Softmax of scores that differ by thousands, and of equal ones: the largest is subtracted first."""
    for scale in (1e4, 1e-9):
        native, blocks = views(replace(LLAMA, attention_scale=scale))
        assert_close(
            decoded(native, after_prompts(native), IDS[:, :4])[0], decoded(blocks, after_prompts(blocks), IDS[:, :4])[0]
        )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_greedy_tokens_are_those_of_the_blocks_in_pytorch(precision: Any) -> None:
    def tokens(view: Any) -> list[list[int]]:
        engine = Engine(view)
        for count in LENGTHS:
            engine.add(IDS[0, :count].tolist(), Sampling(max_tokens=40, temperature=0))
        found: list[list[int]] = [[], [], []]
        while engine.has_unfinished:
            for each in engine.next_tokens():
                found[each.request].append(each.token.id)
        return found

    native, blocks = views(LLAMA, precision)
    assert tokens(native) == tokens(blocks)
