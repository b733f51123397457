"""The plan: published parameter counts, parameter groups that add up, memory and FLOPs against torch's own counts."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console

import clearstory
from clearstory.cli.plan_display import print_plan
from clearstory.errors import BadSetting, CannotDo
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.families import PRESETS, family_of
from clearstory.models.matmul.backend import using_backend
from clearstory.models.transformer.presets import CLEAR, GPT2
from clearstory.models.transformer.sizing import parameter_count as on_paper
from clearstory.recipes.planning.costs import HARDWARE, activation_numbers, cache_numbers, flops_per_token
from clearstory.recipes.planning.parameter_groups import classify_parameter, list_parameter_groups, parameter_formula
from clearstory.recipes.planning.plan import PRESET_NOTES, ModelPlan, plan
from tiny import TINY_CLEAR, TINY_GPT2, TINY_LSTM, TINY_RECALL, TINY_RECALL_SUBWORDS

PLANNED = [name for name, config in PRESETS.items() if list_parameter_groups(config)]


def printed_lines(found: ModelPlan, width: int) -> list[str]:
    """The plan as it is printed, line by line."""
    stream = io.StringIO()
    print_plan(found, Console(file=stream, width=width, soft_wrap=True, highlight=False, color_system=None))
    return stream.getvalue().splitlines()


def group_named(found: ModelPlan, name: str) -> Any:
    (one,) = [each for each in found.parameter_groups if each.name == name]
    return one


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-xl", 1_557_611_200),
        ("llama3-8b", 8_030_261_248),
        ("phi3-mini", 3_821_079_552),
        ("bert-base", 110_106_428),
        ("t5-small", 60_506_624),
        ("gpt3-175b", 174_604_259_328),
    ],
)
def test_published_parameter_counts(name: str, count: int) -> None:
    found = plan(name, measure=False)
    assert found.parameters == sum(each.parameters for each in found.parameter_groups) == count


@pytest.mark.parametrize("name", PLANNED)
def test_every_preset_has_a_plan_without_unknown_parameters(name: str) -> None:
    found = plan(name, measure=False)
    assert not [each.name for each in found.parameter_groups if each.group == "other"]
    if found.config.family in ("transformer", "rnn", "gru", "lstm"):
        count = family_of(found.config).parameter_count
        assert count is not None
        assert found.parameters == count(found.config)
        assert (
            found.flops_per_token["training"]
            == 3 * found.flops_per_token["forward"]
            == 3 * sum(found.flops_by_group.values())
        )
    for width in (80, 140):
        lines = printed_lines(found, width)
        assert max(map(len, lines)) <= width
        assert any(f"{found.parameters:,}" in line for line in lines)


def test_gpt3_by_head_and_by_term() -> None:
    found = plan("gpt3-175b", measure=False)
    query = group_named(found, "query")
    assert (query.symbol, query.shape, query.count_per_layer, query.layers) == ("W_q", (12_288, 128), 96, 96)
    assert group_named(found, "output").shape == (128, 12_288)
    assert group_named(found, "tokens").shape == (50_257, 12_288)
    # 12 L d², 13 L d, V d, T d, 2 d with L = 96, d = 12,288, V = 50,257, T = 2,048
    terms = [12 * 96 * 12_288**2, 13 * 96 * 12_288, 50_257 * 12_288, 2_048 * 12_288, 2 * 12_288]
    assert [term.parameters for term in found.formula_terms] == terms
    assert sum(terms) == 174_604_259_328
    # 12 d² + 13 d
    assert found.parameters_per_layer == 12 * 12_288**2 + 13 * 12_288
    text = "\n".join(printed_lines(found, 80))
    for expected in (
        "12,288 × 128",
        "50,257 × 12,288",
        "96",
        *(f"{term:,}" for term in terms),
        "banded sparse attention",
    ):
        assert expected in text


def test_the_formula_is_shown_only_where_it_holds() -> None:
    assert all(parameter_formula(PRESETS[name]) for name in ("gpt2", "gpt2-xl", "gpt3-6.7b"))
    # Heads of another width, no biases, other norms
    assert not any(
        parameter_formula(PRESETS[name]) for name in ("gpt3-13b", "nanogpt-char", "llama3-8b", "lstm", "hmm")
    )
    assert PRESET_NOTES.keys() == {name for name in PRESETS if name.startswith("gpt3")}


def test_an_lstm_by_its_gates() -> None:
    found = plan("lstm", measure=False)
    # 4 gates of 512 units, from 256 inputs and from 512 units; two biases a gate
    assert (group_named(found, "input").shape, group_named(found, "input").count_per_layer) == (
        (256, 512),
        4,
    )
    assert (group_named(found, "recurrent").shape, group_named(found, "recurrent").count_per_layer) == (
        (512, 512),
        4,
    )
    assert (group_named(found, "biases").shape, group_named(found, "biases").count_per_layer) == ((512,), 8)
    # 2 · (4 · 256 · 512 + 4 · 512 · 512 + 8 · 512) and 2 · 512 · 8,192
    assert found.flops_per_token["forward"] == 3_153_920 + 8_388_608
    assert found.memory["cache_fp32"] == 4 * 2 * 512


def test_parameters_without_a_pattern_are_counted_as_other() -> None:
    assert classify_parameter("sieve.dense.weight")[:2] == ("other", "sieve.dense.weight")
    assert classify_parameter("blocks.7.attention.bias_table.weight")[:2] == (
        "other",
        "blocks.*.attention.bias_table.weight",
    )
    assert classify_parameter("encoder.blocks.7.attention.value.weight")[:2] == ("attention", "encoder value")
    assert classify_parameter("decoder.blocks.7.cross_attention.key.bias")[:2] == ("attention", "cross biases")


def test_a_new_module_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from clearstory.recipes.planning import parameter_groups

    known = list(parameter_groups.parameter_shapes(TINY_GPT2))
    list_parameter_groups.cache_clear()
    monkeypatch.setattr(
        parameter_groups, "parameter_shapes", lambda config: [*known, ("sieve.weight", (5, 7)), ("sieve.bias", (5,))]
    )
    found = list_parameter_groups(TINY_GPT2)
    assert [(each.name, each.parameters) for each in found[-2:]] == [("sieve.weight", 35), ("sieve.bias", 5)]
    assert sum(each.parameters for each in found) == on_paper(TINY_GPT2) + 40
    list_parameter_groups.cache_clear()


def saved_activations(config: Any, rows: int, context: int) -> float:
    """Numbers per token that torch saves for the backward pass of a real model."""
    model = build(config, seed=0).train()
    learnt = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    seen: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in learnt:
            seen[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ids = TokenBatch(torch.zeros(rows, context, dtype=torch.long))
        _ = (
            model.run_stack(ids.ids, ids)
            if getattr(config, "architecture", "") == "encoder-decoder"
            else model.forward(ids)
        )
        return sum(each.nbytes() for each in seen.values()) / 4 / rows / context


WIDE = {"width": 64, "head_dim": 16, "heads": 4, "intermediate_size": 200, "context": 64}


@pytest.mark.parametrize(
    "config",
    [
        replace(TINY_GPT2, **WIDE, kv_heads=4),
        replace(TINY_GPT2, **WIDE, kv_heads=4, activation="relu", layers=3),
        replace(TINY_GPT2, **WIDE, kv_heads=4, activation="gelu"),
        replace(TINY_CLEAR, **WIDE, kv_heads=2),
        replace(TINY_CLEAR, **WIDE, kv_heads=4, qk_norm=False),
        replace(PRESETS["bert-tiny"], **WIDE, kv_heads=4, vocab=9, dropout=0.0),
        replace(PRESETS["transformer-base"], **WIDE, kv_heads=4, vocab=9, layers=2, dropout=0.0),
        replace(PRESETS["t5-small"], **WIDE, kv_heads=4, vocab=9, layers=2, dropout=0.0),
    ],
    ids=["gpt2", "relu", "gelu", "clear", "llama", "bert", "2017", "t5"],
)
def test_activations_are_those_that_torch_saves(config: Any) -> None:
    estimated, words = activation_numbers(list_parameter_groups(config), config, 64)
    # The formula omits means and deviations of norms, sums of the softmax, and ids.
    assert saved_activations(config, 2, 64) == pytest.approx(estimated, rel=0.05)
    assert words.startswith("L (4 d")


def test_activations_of_recurrent_models_are_a_lower_bound() -> None:
    config = replace(TINY_LSTM, cell="rnn", width=32, hidden_size=48, tie_embeddings=False)
    # 32 + 48 · 2 and 48 + 48 · 2
    assert activation_numbers(list_parameter_groups(config), config, 64)[0] == 32 + 96 + 48 + 96
    assert saved_activations(TINY_LSTM, 2, 64) > activation_numbers(list_parameter_groups(TINY_LSTM), TINY_LSTM, 64)[0]


def test_the_cache_is_what_a_state_holds() -> None:
    for config in (TINY_GPT2, TINY_CLEAR, replace(TINY_CLEAR, kv_heads=2), replace(TINY_CLEAR, sliding_window=5)):
        model = build(config, seed=0)
        _, state = model.forward(TokenBatch(torch.zeros(1, 20, dtype=torch.long)), model.init_state())
        held = sum(each.numel() for name, each in state.tensors().items() if each.is_floating_point())
        estimated, _ = cache_numbers(list_parameter_groups(config), config, 20)
        assert estimated == held if config.sliding_window is None else estimated <= held


def test_an_encoder_has_no_cache_and_a_decoder_one_for_both_attentions() -> None:
    assert plan("bert-base", measure=False).memory["cache_fp32"] == 0
    found = plan("transformer-base", context=100, measure=False)
    # 6 layers, self- and cross-attention, keys and values of 512, 100 tokens, 4 bytes
    assert found.memory["cache_fp32"] == 6 * 2 * 2 * 512 * 100 * 4
    assert "one source token and one target token" in found.notes[0]


def test_flops_equal_those_of_torch() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for config in (TINY_GPT2, replace(TINY_CLEAR, kv_heads=2), TINY_RECALL, TINY_RECALL_SUBWORDS):
        model = build(config, seed=0)
        counter = FlopCounterMode(display=False)
        math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        with using_backend("mkl"), counter, torch.no_grad(), math:  # torch does not count oneDNN's products
            model.logits(model.forward(TokenBatch(torch.zeros(1, 24, dtype=torch.long)))[0])
        by_torch = counter.get_total_flops() / 24
        vectors = sum(2 * each.parameters for each in list_parameter_groups(config) if each.is_vector)
        assert flops_per_token(list_parameter_groups(config), config, 24)["forward"] - vectors == pytest.approx(
            by_torch, rel=0.01
        )


def test_a_longer_context_costs_only_attention_and_memory() -> None:
    short, long = (plan("llama3-8b", context=context, measure=False) for context in (1024, 4096))
    assert long.parameters == short.parameters
    assert long.flops_per_token["weights"] == short.flops_per_token["weights"]
    for key in ("activations_bf16", "cache_bf16"):
        assert long.memory[key] == 4 * short.memory[key]
    assert long.flops_per_token["attention"] == 4 * short.flops_per_token["attention"]
    # 32 layers of 8 heads of 128, keys and values, 2 bytes: 131,072 bytes a token
    assert short.memory["cache_bf16"] == 1024 * 131_072


def test_devices_share_weights_and_not_activations() -> None:
    one, many = (plan("gpt2", devices=devices, measure=False) for devices in (1, 8))
    # 16 bytes of each parameter
    assert one.training_bytes_per_device == 16 * 124_439_808 + one.memory["activations_bf16"]
    assert many.training_bytes_per_device == 16 * 124_439_808 // 8 + many.memory["activations_bf16"]
    assert many.estimates[0].seconds == pytest.approx(one.estimates[0].seconds / 8)


def test_hashed_ngram_tables_have_no_moments() -> None:
    found = plan("recall", measure=False)
    rows, others = 6 * 2**17, found.parameters - 6 * 2**17 * 67
    assert found.memory["adamw_fp32"] == 8 * others + 4 * rows
    assert found.memory["gradients_fp32"] == 4 * others


def test_hardware_names_its_sources() -> None:
    assert all(each.source and each.precision == "bf16" for each in HARDWARE)
    priced = clearstory.plan("gpt2", price=2.0, measure=False)
    assert all(run.dollars for run in priced.estimates)
    assert "$" in "\n".join(printed_lines(priced, 80))


def test_count_models_have_no_training_estimate() -> None:
    with pytest.raises(CannotDo, match="ngram has no parameters, only tables whose size depends on the text"):
        plan("ngram")
    found = plan("hmm", measure=False)
    assert "there is no estimate of training for this family (hmm)" in found.notes[0]
    assert (found.estimates, found.flops_per_token, found.total_flops) == ((), {}, None)
    # 256 + 256² + 8,192 · 256
    assert found.parameters == 256 + 256**2 + 8192 * 256


def test_invalid_settings_raise() -> None:
    with pytest.raises(BadSetting, match="context is 0; it must be at least 1"):
        plan("gpt2", context=0)


def test_the_largest_model_is_not_allocated() -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan("gpt3-175b", measure=False)
    # kilobytes; the weights would be 700 GB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_resized_presets_have_their_own_plan() -> None:
    found = plan("gpt2", measure=False, **{"model.width": 384, "model.layers": 3})
    assert (found.config.heads, found.config.layers) == (6, 3)
    assert found.parameters == on_paper(replace(GPT2, width=384, heads=6, kv_heads=6, intermediate_size=1536, layers=3))
    assert plan("clear", parameters=1_000_000, measure=False).config != CLEAR
