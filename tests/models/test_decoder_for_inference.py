"""DecoderForInference: the logits of its model, for every setting of a decoder; states are values; rows independent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.inference_model import inference_model
from clearstory.models.matmul.packed import is_available
from clearstory.models.transformer.inference import DecoderForInference, can_join
from clearstory.models.transformer.presets import TRANSFORMER_PRESETS
from tiny import TINY_CLEAR, TINY_GPT2, TINY_RECALL, TINY_RECALL_SUBWORDS

pytestmark = pytest.mark.usefixtures("kernels_by")

GROUPED = replace(TINY_CLEAR, kv_heads=2)
CONFIGS = {
    "gpt2": TINY_GPT2,
    "qwen3": TINY_CLEAR,
    "grouped": GROUPED,
    "no qk_norm": replace(GROUPED, qk_norm=False),
    "qk_norm without rotation": replace(GROUPED, positions="none"),
    "biases": replace(GROUPED, bias=True, norm="layer"),
    "attention scale": replace(GROUPED, attention_scale=0.3),
    "sliding window": replace(GROUPED, sliding_window=4),
    "local and global layers": replace(
        GROUPED, sliding_window=4, global_interval=2, local_rope_theta=100.0, rope_factor=4.0
    ),
    "norms around sublayers": replace(
        GROUPED, norm="rms_unit_offset", sandwich_norm=True, embed_scale=True, activation="gelu_tanh"
    ),
    "scaled rotation": replace(GROUPED, rope_factor=4.0, rope_original_context=8),
    "post-norm": replace(TINY_GPT2, norm_first=False, embed_norm=True, embed_scale=True, positions="sinusoidal"),
    "relu, gated": replace(TINY_GPT2, activation="relu", gated=True),
    "gelu, untied": replace(TINY_GPT2, activation="gelu", tie_embeddings=False),
    "hashed n-grams": TINY_RECALL,
    "hashed n-grams of subwords": TINY_RECALL_SUBWORDS,
    "relative positions": replace(TINY_GPT2, positions="relative_bias"),
}
IDS = torch.randint(23, (3, 12), generator=torch.Generator().manual_seed(7))


def shaken_model(config: Any) -> Any:
    """A model in fp32 with noise on every parameter."""
    model, generator = build(config, seed=3).eval(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model


def logits_in_pieces(view: Any, ids: torch.Tensor, pieces: tuple[int, ...]) -> torch.Tensor:
    """Logits of all tokens, read in pieces of these lengths over one state."""
    state, found = view.init_state(len(ids)), []
    for piece in ids.split(list(pieces), 1):
        hidden, state = view.forward(TokenBatch(piece), state)
        found.append(view.logits(hidden))
    return torch.cat(found, 1)


@pytest.mark.parametrize("name", CONFIGS)
def test_its_logits_are_its_models(name: str) -> None:
    model = shaken_model(CONFIGS[name])
    assert can_join(model) == (name != "relative positions")
    with torch.no_grad():
        wanted = model.logits(model.forward(TokenBatch(IDS))[0])
        for precision, tolerance in (("fp32", 1e-5), ("fp16", 1e-2)):
            if not is_available(precision):  # type: ignore[arg-type]  # one of the literals
                continue
            view: Any = inference_model(model, precision)  # type: ignore[arg-type]  # the same
            largest = tolerance * wanted.abs().max()
            assert (view.logits(view.forward(TokenBatch(IDS))[0]) - wanted).abs().max() <= largest
            for pieces in ((1,) * 12, (5, 1, 4, 1, 1), (12,)):
                assert (logits_in_pieces(view, IDS, pieces) - wanted).abs().max() <= largest


def test_all_decoder_presets_have_the_joined_form() -> None:
    for name, config in TRANSFORMER_PRESETS.items():
        if config.architecture == "decoder":
            small = replace(
                config, vocab=23, width=32, layers=1, heads=2, kv_heads=1, head_dim=16, intermediate_size=32, context=64
            )
            assert can_join(build(replace(small, recall_rows=min(small.recall_rows, 8)), seed=1)), name


@pytest.mark.parametrize("name", ["gpt2", "grouped", "sliding window", "hashed n-grams"])
def test_states_are_values(name: str) -> None:
    view: Any = inference_model(shaken_model(CONFIGS[name]), "fp32")
    lengths = torch.tensor([4, 2, 3])
    _, start = view.forward(TokenBatch(IDS[:, :4], lengths), view.init_state(3))
    assert start.lengths == [4, 2, 3]

    def next_logits(state: Any, ids: list[int]) -> torch.Tensor:
        hidden, _ = view.forward(TokenBatch(torch.tensor(ids)[:, None]), state)
        return view.logits(hidden)[:, 0]  # type: ignore[no-any-return]  # view is Any

    first = next_logits(start, [1, 2, 3])
    next_logits(start, [9, 9, 9])
    assert torch.allclose(next_logits(start, [1, 2, 3]), first, atol=1e-6), "an old state stays valid"
    twice = start.select([2, 2, 0])
    assert torch.allclose(next_logits(twice, [3, 9, 1])[[0, 2]], first[[2, 0]], atol=1e-5)
    joined = type(start).join([start.select([1]), start.select([0])])
    assert torch.allclose(next_logits(joined, [2, 1]), first[[1, 0]], atol=1e-5)
    for row, length in enumerate([4, 2, 3]):
        alone = logits_in_pieces(
            view, torch.cat([IDS[row : row + 1, :length], torch.tensor([[row + 1]])], 1), (length, 1)
        )
        assert torch.allclose(alone[0, -1], first[row], atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_tokens_and_logprobs_do_not_depend_on_the_other_requests(precision: Any) -> None:
    if not is_available(precision):
        pytest.skip(f"no {precision} kernels for this processor")
    # Widths of whole vectors of the processor: elementwise functions round a remainder in another way.
    config = replace(GROUPED, width=64, head_dim=16, intermediate_size=64, context=64)
    view: Any = inference_model(shaken_model(config), precision)
    prompts = [[3, 1, 4, 1], [5], [9, 2, 6, 5, 3, 5, 8], [9, 7, 9, 3]]

    def run(prompts: list[list[int]]) -> dict[int, list[tuple[int, float]]]:
        engine, found = Engine(view), dict[int, list[tuple[int, float]]]()
        for prompt in prompts:
            engine.add(prompt, Sampling(max_tokens=20, temperature=0))
        while engine.has_unfinished:
            for each in engine.next_tokens():
                found.setdefault(each.request, []).append((each.token.id, each.token.logprob))
        return found

    together = run(prompts)
    assert [together[index] for index in range(4)] == [run([prompt])[0] for prompt in prompts]


def test_a_model_with_adapters_or_of_another_dtype_keeps_its_own_form() -> None:
    from clearstory.models.lora import adapt

    assert not can_join(shaken_model(TINY_GPT2).double())
    assert not can_join(adapt(shaken_model(TINY_GPT2), rank=2))
    assert not can_join(object())
    joined: Any = inference_model(shaken_model(TINY_GPT2), "fp32")
    assert isinstance(joined.base_model, DecoderForInference)
