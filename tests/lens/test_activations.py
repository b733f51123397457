"""Activations: what is recorded is what the model computes, and recording changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import BadSetting, CannotDo, UnknownName
from clearstory.lens.hooks.activations import (
    ACTIVE_HOOKS,
    activation_names,
    record_activations,
    replace_activations,
    transformer_stacks,
)
from clearstory.lens.hooks.installation import weighted_values
from clearstory.models.base import TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from tiny import MODELS, VOCAB, shaken

IDS = [3, 1, 4, 1, 5, 9, 2, 6]

TINY = {
    "width": 16,
    "layers": 2,
    "heads": 2,
    "kv_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "vocab": VOCAB,
    "context": 24,
}
MAKE: dict[str, Any] = {
    **{name: make for name, make in MODELS.items() if name in ("gpt2", "clear", "grouped", "windowed", "recalling")},
    "placeless": MODELS["placeless"],
    "encoder": lambda: shaken(replace(BERT_TINY, **TINY)),
    "t5": lambda: shaken(replace(T5_SMALL, **TINY | {"layers": 1})),
    "lstm": MODELS["lstm"],
    "rnn": MODELS["rnn"],
}


DEFAULT = ("gpt2", "t5", "lstm")
"""Models in which every activation is replaced by default; in the others with -m slow."""


def read(model: Any) -> torch.Tensor:
    """A model's logits for a text, and a source where it reads one."""
    has_source = Capability.SOURCE in model.capabilities
    more = {"source": TokenBatch.from_sequences([IDS[::-1]])} if has_source else {}
    with torch.no_grad():
        hidden, _ = model.forward(TokenBatch.from_sequences([IDS]), **more)
        return model.logits(hidden)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", MAKE)
def test_a_recorded_model_gives_the_same_logits_bit_for_bit(name: str) -> None:
    model = MAKE[name]()
    alone = read(model)
    with record_activations(model, "**") as seen:
        assert torch.equal(read(model), alone)
    assert set(seen) == set(activation_names(model))
    assert not ACTIVE_HOOKS
    assert torch.equal(read(model), alone)
    assert not any("attend" in vars(module) or "residual" in vars(module) for module in model.modules())


@pytest.mark.parametrize("name", [name for name in MAKE if name not in ("lstm", "rnn")])
def test_recorded_activations_add_up(name: str) -> None:
    model = MAKE[name]()
    with record_activations(model, "**") as seen:
        read(model)
    for prefix, stack in transformer_stacks(model):
        before = seen[f"{prefix}embedding_output"]
        for number, block in enumerate(stack.blocks):
            own = f"{prefix}blocks.{number}"
            for step, after, norm in (
                ("attention", f"{own}.after_attention", block.attention_norm),
                ("cross_attention", f"{own}.after_cross_attention", block.cross_attention_norm),
                ("feed_forward", own, block.feed_forward_norm),
            ):
                if norm is None:
                    continue
                total = before + seen[f"{own}.{step}"]
                assert torch.equal(seen[after], total if block.norm_first else norm(total))
                before = seen[after]
                if step == "feed_forward":
                    assert torch.equal(block.feed_forward.down(seen[f"{own}.{step}.neurons"]), seen[f"{own}.{step}"])
                    continue
                at = f"{own}.{step}"
                pattern = seen[f"{at}.pattern"]
                assert torch.allclose(pattern.sum(-1), torch.ones(()).to(pattern))
                hidden = pattern == 0
                assert torch.equal(hidden, torch.isinf(seen[f"{at}.scores"]))
                assert bool(hidden.any()) == (step == "attention" and block.attention.causal)
                # Equal to the output of PyTorch's fused kernel.
                answer = weighted_values(pattern, seen[f"{at}.value"])
                assert torch.allclose(answer, seen[f"{at}.head_outputs"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in DEFAULT else pytest.mark.slow) for name in MAKE]
)
def test_a_replacement_by_the_same_value_gives_the_same_logits_and_another_does_not(name: str) -> None:
    model = MAKE[name]()
    alone = read(model)
    for activation in activation_names(model):
        with replace_activations(model, {activation: lambda value: value}):
            assert torch.equal(read(model), alone), activation
        if activation.endswith(".scores"):
            continue
        with replace_activations(model, {activation: lambda value: value.roll(1, -1)}):
            assert not torch.allclose(read(model), alone), activation


def test_replacements_are_recorded_and_applied_one_after_another() -> None:
    model = MAKE["gpt2"]()
    activation = "blocks.0.attention.pattern"
    first = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    first[..., 0] = 1.0
    with record_activations(model, activation, "blocks.0.attention.head_outputs", "blocks.0.attention.value") as seen:
        with (
            replace_activations(model, {activation: first}),
            replace_activations(model, {activation: lambda value: value * 2}),
        ):
            read(model)
        assert torch.equal(seen[activation], first * 2)
        values = seen["blocks.0.attention.value"]
        assert torch.allclose(seen["blocks.0.attention.head_outputs"], values[:, :, :1].expand_as(values) * 2)


def test_a_continued_sequence_is_recorded_like_a_whole_one() -> None:
    for name in ("gpt2", "grouped", "windowed"):
        model: Any = MAKE[name]()
        activation = "blocks.*.attention.pattern"
        with record_activations(model, activation) as whole:
            read(model)
        with record_activations(model, activation) as last:
            _, state = model.forward(TokenBatch.from_sequences([IDS[:-1]]), model.init_state())
            model.forward(TokenBatch.from_sequences([IDS[-1:]]), state)
        for at, pattern in last.items():
            kept = pattern.shape[-1]
            assert torch.allclose(pattern[0, :, 0], whole[at][0, :, -1, -kept:], rtol=1e-9)
            assert math.isclose(float(pattern.sum()), pattern.shape[1])


def test_what_cannot_be_recorded_is_refused() -> None:
    model = MAKE["gpt2"]()
    with (
        pytest.raises(UnknownName, match=r"no activation matches 'blocks\.7\.after_attention'"),
        record_activations(model, "blocks.7.after_attention"),
    ):
        pass
    with (
        pytest.raises(UnknownName, match="unknown activation 'block'"),
        replace_activations(model, {"block": torch.zeros(1)}),
    ):
        pass
    with (
        pytest.raises(BadSetting, match="give one of the same shape"),
        replace_activations(model, {"embedding_output": torch.zeros(1)}),
    ):
        read(model)
    with (
        pytest.raises(CannotDo, match="has no residual stream"),
        record_activations(MODELS["ngram"](), "embedding_output"),
    ):
        pass
    with (
        pytest.raises(CannotDo, match="sequences of different lengths"),
        record_activations(model, "blocks.0.attention.pattern"),
    ):
        model.forward(TokenBatch.from_sequences([[1, 2], [3]]), model.init_state(2))
    assert not ACTIVE_HOOKS
