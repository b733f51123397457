"""LoRA: the model starts equal to its base, only A and B are trained, and merging changes no output."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clearstory.errors import BadSetting, CannotDo, CheckpointMismatch, UnknownName
from clearstory.models.base import TokenBatch
from clearstory.models.families import PRESETS
from clearstory.models.lora import LoRALinear, adapt, adaptable_layers, lora_layers, merge_lora
from clearstory.models.shallow_copy import shallow_copy
from clearstory.training.objectives.causal import Causal
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer
from tiny import MODELS, TINY_GPT2, VOCAB, shaken

IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [7, 3, 1, 1, 20, 22, 0]])

# Every kind of model with linear maps, and what there is to adapt in it.
TARGETS: dict[str, tuple[str, ...]] = {
    "gpt2": ("query", "value"),
    "clear": ("query", "key", "value", "output", "gate", "up", "down"),
    "grouped": ("blocks.1.*",),
    "windowed": ("key",),
    "recalling": ("query", "input_projection", "order_weights"),
    "recalling-subwords": ("output_projection",),
    "placeless": ("up",),
    "rnn": ("input", "recurrent"),
    "gru": ("recurrent",),
    "lstm": ("input", "recurrent"),
    "adaptive": ("layers.1.*",),
}


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        hidden, _ = model.forward(TokenBatch(ids))
        out: Tensor = model.logits(hidden)
    return out


def moved(model: Any, seed: int = 3) -> Any:
    """The same model as after training: B is no longer zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in lora_layers(model).values():
            each.lora_b.add_(torch.randn(each.lora_b.shape, generator=generator).to(each.lora_b))
    return model


def test_modules_are_trained_as_a_whole_beside_lora() -> None:
    base: Any = shaken(TINY_GPT2)
    adapted = adapt(base, rank=2, modules_to_save=("embedding", "blocks.1.attention_norm"))
    trained = {name for name, each in adapted.named_parameters() if each.requires_grad and "lora" not in name}
    assert trained == {"embedding.weight", "blocks.1.attention_norm.weight", "blocks.1.attention_norm.bias"}
    torch.testing.assert_close(logits(adapted), logits(base), rtol=0, atol=0)
    with torch.no_grad():
        adapted.embedding.weight.add_(1.0)
    assert torch.equal(base.embedding.weight + 1, adapted.embedding.weight)  # the base is unchanged
    assert torch.equal(merge_lora(adapted).embedding.weight, adapted.embedding.weight)
    with pytest.raises(
        UnknownName, match=r"lora\.modules_to_save has 'embeding', but no module has that name; did you"
    ):
        adapt(base, modules_to_save=("embeding",))
    with pytest.raises(
        BadSetting, match=r"both have blocks\.0\.attention\.query; it is trained either in full or with LoRA"
    ):
        adapt(base, targets=("query",), modules_to_save=("query",))


@pytest.mark.parametrize("name", TARGETS)
def test_a_new_adapter_changes_no_logit(name: str) -> None:
    base = MODELS[name]()
    adapted = adapt(base, rank=3, targets=TARGETS[name], seed=1)
    assert all(not layer.lora_b.any() for layer in lora_layers(adapted).values())
    # Not bit for bit: an adapted recurrent cell runs step by step, where torch's fused kernel sums in another order.
    assert torch.allclose(logits(adapted), logits(base), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TARGETS)
def test_merging_changes_no_output(name: str) -> None:
    base = MODELS[name]()
    before = {key: value.clone() for key, value in base.state_dict().items()}
    adapted = moved(adapt(base, rank=3, alpha=5.0, targets=TARGETS[name]))
    plain = merge_lora(adapted)
    assert float((logits(adapted) - logits(base)).abs().max()) > 1e-3, "the adaptation does nothing"
    assert float((logits(plain) - logits(adapted)).abs().max() / logits(base).abs().max()) < 1e-9
    assert type(plain) is type(base)
    assert {key: value.shape for key, value in plain.state_dict().items()} == {k: v.shape for k, v in before.items()}
    assert all(each.requires_grad for each in plain.parameters())
    # Neither adapting nor merging changes the base.
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())
    assert all(each.requires_grad for each in base.parameters())


def test_the_product_equals_the_papers_formula() -> None:
    # W = [[1, 2]], A = [[3, 4]], B = [[5]], alpha 2 over rank 1: W x + 2 · 5 · (3 x1 + 4 x2), at x = (1, 1): 3 + 70
    linear = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0]]))
    adapted = LoRALinear(linear, a=torch.tensor([[3.0, 4.0]]), b=torch.tensor([[5.0]]), alpha=2.0)
    assert adapted(torch.ones(2)).item() == 73
    assert adapted.merged().weight.tolist() == [[31.0, 42.0]]


def test_only_a_and_b_are_trainable_and_the_seed_decides_a() -> None:
    base = MODELS["gpt2"]()
    adapted = adapt(base, rank=3, seed=5)
    learning = {name for name, each in adapted.named_parameters() if each.requires_grad}
    assert learning == {
        f"blocks.{layer}.attention.{name}.lora_{side}"
        for layer in (0, 1)
        for name in ("query", "value")
        for side in "ab"
    }
    same, other = adapt(base, rank=3, seed=5), adapt(base, rank=3, seed=6)
    a, b, c = (next(iter(lora_layers(each).values())).lora_a for each in (adapted, same, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_dropout_acts_in_training_only() -> None:
    adapted = moved(adapt(MODELS["gpt2"](), rank=3, dropout=0.5))
    assert torch.equal(logits(adapted), logits(adapted))
    adapted.train()
    assert not torch.equal(logits(adapted), logits(adapted))


@pytest.mark.parametrize("name", ["bert-tiny", "transformer-base", "t5-small"])
def test_encoders_and_encoder_decoders_are_adapted_too(name: str) -> None:
    config = replace(TINY_GPT2, layers=1)
    shape = {key: getattr(config, key) for key in ("vocab", "context", "width", "heads", "kv_heads", "head_dim")}
    base: Any = shaken(replace(PRESETS[name], **shape, intermediate_size=32, layers=1))

    def answer(model: Any) -> Tensor:
        with torch.no_grad():
            ids = TokenBatch(IDS)
            vectors = model.run_stack(IDS, ids) if base.config.architecture == "encoder-decoder" else model.encode(ids)
            out: Tensor = model.logits(vectors)
        return out

    adapted = adapt(base, rank=2, targets=("query", "up"))
    assert torch.equal(answer(adapted), answer(base))
    moved(adapted)
    assert float((answer(adapted) - answer(base)).abs().max()) > 1e-3
    assert torch.allclose(answer(merge_lora(adapted)), answer(adapted), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "settings", "error", "says"),
    [
        ("gpt2", {"targets": ("querry",)}, UnknownName, "targets has 'querry'.*did you mean 'query'"),
        ("gpt2", {"targets": ()}, BadSetting, "targets is empty"),
        ("gpt2", {"rank": 0}, BadSetting, "it must be at least 1"),
        ("gpt2", {"rank": -1}, BadSetting, "rank is -1"),
        ("gpt2", {"alpha": 0.0}, BadSetting, "alpha is 0"),
        ("gpt2", {"dropout": 1.0}, BadSetting, "dropout is 1"),
        ("lstm", {}, UnknownName, "targets has 'query'.*known: input, recurrent"),
        ("ngram", {}, CannotDo, r"\(ngram\) has no linear layers"),
        ("hmm", {}, CannotDo, r"\(hmm\) has no linear layers"),
        ("placeless", {"targets": ("unembedding",)}, UnknownName, "targets has 'unembedding'"),
    ],
)
def test_models_that_cannot_be_adapted_are_refused(name: str, settings: dict[str, Any], error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        adapt(MODELS[name](), **settings)


def test_adapting_twice_is_refused() -> None:
    with pytest.raises(CannotDo, match="merge them first"):
        adapt(adapt(MODELS["gpt2"]()))


def test_a_shallow_copy_has_no_hooks_and_keeps_shared_parameters_shared() -> None:
    first = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    first[1].weight = first[0].weight
    heard: list[int] = []
    first[0].register_forward_hook(lambda *_: heard.append(1))
    second = shallow_copy(first, lambda name, each: None)
    second[0].register_forward_hook(lambda *_: heard.append(2))
    first(torch.ones(1, 2))
    assert heard == [1]
    assert second[0].weight is second[1].weight
    assert len(adaptable_layers(second)) == 2


def trainer(model: Any, steps: int = 6, **settings: Any) -> Trainer:
    usual = {"batch_size": 4, "context": 8, "warmup_steps": 1, "learning_rate": 0.02, "weight_decay": 0.0}
    rows = SimpleNamespace(ids=(np.arange(2000) * 7 + np.arange(2000) // 9) % VOCAB)
    return Trainer(model, Causal(), rows, TrainingSettings(**{**usual, **settings}), steps=steps)


@pytest.mark.parametrize("name", ["gpt2", "lstm"])
def test_training_leaves_the_base_unchanged(name: str) -> None:
    base = shaken(TINY_GPT2 if name == "gpt2" else MODELS["lstm"]().config).float()
    before = {key: value.clone() for key, value in base.state_dict().items()}
    adapted = adapt(base, rank=4, targets=TARGETS[name], seed=1)
    losses = [progress.loss for progress in trainer(adapted, steps=40)]
    assert losses[-1] is not None
    assert losses[0] is not None
    assert losses[-1] < losses[0] - 0.2
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())


def test_a_resumed_run_equals_an_uninterrupted_one_and_its_checkpoint_holds_no_base() -> None:
    def new() -> Trainer:
        return trainer(adapt(shaken(TINY_GPT2).float(), rank=2, dropout=0.1, seed=1))

    whole = new()
    losses = [progress.loss for progress in whole]
    first = new()
    begun = [first.train_step().loss for _ in range(3)]
    tensors, values = first.checkpoint_state()
    assert {name.rpartition(".")[2] for name in tensors if name.startswith("model.")} == {"lora_a", "lora_b"}
    second = new()
    second.load_checkpoint_state(tensors, values)
    assert begun + [progress.loss for progress in second] == losses
    ends = (whole.model.state_dict(), second.model.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_a_checkpoint_of_another_rank_is_refused() -> None:
    narrow, wide = (trainer(adapt(shaken(TINY_GPT2).float(), rank=rank)) for rank in (2, 3))
    with pytest.raises(CheckpointMismatch, match=r"lora_a' is \(2, 16\) where this run's is \(3, 16\)"):
        wide.load_checkpoint_state(*narrow.checkpoint_state())


def test_a_bf16_stream_works() -> None:
    model: Any = moved(adapt(shaken(replace(TINY_GPT2, bias=False)).float(), rank=2))
    model.compute_dtype = torch.bfloat16
    rough = logits(model)
    model.compute_dtype = None
    assert rough.dtype in (torch.bfloat16, torch.float32)
    assert torch.allclose(rough.float(), logits(model), atol=0.2, rtol=0.1)
