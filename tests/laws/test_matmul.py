"""Laws of matrix products: every backend gives PyTorch's numbers and gradients, and a run keeps the one it has."""

from __future__ import annotations

import functools
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import BadSetting
from clearstory.models.autograd_functions import Linear, joined_linear
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.cross_entropy import linear_cross_entropy
from clearstory.models.matmul import backend, fastest_precision, kernels, measurement_cache
from clearstory.models.matmul.linear import linear
from clearstory.models.matmul.measurement_cache import Measurement, fastest_of
from clearstory.recipes.training.loop import train
from clearstory.training.objectives.causal import Causal
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer
from tiny import TINY_CLEAR, TINY_GPT2

AVAILABLE = backend.BACKENDS if kernels.has_onednn() else ("mkl",)

SHAPES: dict[str, tuple[tuple[int, ...], int]] = {
    "a matrix": ((64, 24), 40),
    "a batch of sequences": ((3, 17, 24), 40),
    "one output": ((33, 24), 1),
    "one input": ((33, 1), 24),
    "one row": ((1, 24), 40),
    "no rows": ((0, 24), 40),
    "odd sizes": ((77, 13), 7),
}


@pytest.fixture(params=AVAILABLE)
def name(request: pytest.FixtureRequest) -> Any:
    with backend.using_backend(request.param):
        yield request.param


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()


def difference(ours: Tensor, exact: Tensor) -> float:
    """Norm of the difference, relative to the exact result."""
    exact = exact.detach()
    return float((ours.detach().double() - exact).norm() / exact.norm().clamp(min=1e-30))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [False, True])
def test_linear_layers_and_their_gradients_are_pytorchs(name: str, shape: str, bias: bool) -> None:
    rows, outputs = SHAPES[shape]
    inputs = [random(*rows), random(outputs, rows[-1]), *([random(outputs)] if bias else [])]
    upstream = random(*rows[:-1], outputs).detach()
    exact = [each.detach().double().requires_grad_() for each in inputs]
    ours, expected = linear(*inputs), F.linear(*exact)
    assert ours.shape == expected.shape
    assert difference(ours, expected) < 1e-6
    found = torch.autograd.grad(ours, inputs, upstream)
    for one, other in zip(found, torch.autograd.grad(expected, exact, upstream.double()), strict=True):
        assert one.shape == other.shape
        assert difference(one, other) < 1e-6


def test_transposed_and_cut_tensors_are_multiplied_as_they_are(name: str) -> None:
    x, w, g = random(24, 64).t(), random(24, 80).t()[10:50], random(40, 64).t().detach()
    exact_x, exact_w = (each.detach().double().requires_grad_() for each in (x, w))
    found = torch.autograd.grad(linear(x, w), (x, w), g)
    expected = torch.autograd.grad(F.linear(exact_x, exact_w), (exact_x, exact_w), g.double())
    assert max(difference(*pair) for pair in zip(found, expected, strict=True)) < 1e-6


def test_float64_is_untouched(name: str) -> None:
    x, w = random(32, 24, dtype=torch.float64), random(40, 24, dtype=torch.float64)
    assert torch.equal(linear(x, w), F.linear(x, w))


def test_gradients_of_gradients_exist(name: str) -> None:
    x, w = random(32, 24), random(40, 24)
    (first,) = torch.autograd.grad(linear(x, w).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), w)
    exact_x, exact_w = (each.detach().double().requires_grad_() for each in (x, w))
    (first,) = torch.autograd.grad(F.linear(exact_x, exact_w).square().sum(), exact_x, create_graph=True)
    assert difference(second, torch.autograd.grad(first.square().sum(), exact_w)[0]) < 1e-5


@pytest.mark.parametrize("name", AVAILABLE[-1:], indirect=True)
def test_transformed_functions_shapes_and_autocast_use_pytorchs_products(name: str) -> None:
    x, w = random(32, 24).detach(), random(40, 24).detach()
    each_row = torch.func.vmap(lambda row: linear(row.expand(32, -1), w))(x)
    assert difference(each_row[:, 0], F.linear(x, w).double()) < 1e-6
    gradient = torch.func.grad(lambda x: linear(x, w).sum())(x)
    assert difference(gradient, w.sum(0).expand(32, -1).double()) < 1e-6
    assert linear(x.to("meta"), w.to("meta")).shape == (32, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, w).dtype == torch.bfloat16


@pytest.mark.parametrize("bias", [False, True])
def test_layers_trained_by_one_product_give_their_own_numbers(name: str, bias: bool) -> None:
    torch.manual_seed(0)
    layers = [Linear(24, size, bias=bias) for size in (24, 8, 8)]
    x, weights = random(2, 16, 24), [p for layer in layers for p in layer.parameters()]
    found = joined_linear(x, layers)
    alone = [layer(x) for layer in layers]
    assert [out.shape for out in found] == [out.shape for out in alone]
    ours = torch.autograd.grad(sum(out.square().sum() for out in found), [x, *weights])
    expected = torch.autograd.grad(sum(out.square().sum() for out in alone), [x, *weights])
    assert max(difference(one, other.double()) for one, other in zip(ours, expected, strict=True)) < 1e-5


def test_joined_weights_are_not_kept_and_their_gradients_have_gradients(name: str) -> None:
    torch.manual_seed(0)
    layers, x = [Linear(24, size, bias=False) for size in (24, 8)], random(16, 24)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        out = torch.cat(list(joined_linear(x, layers)), -1)
    sources = {each.data_ptr() for each in (x, *(layer.weight for layer in layers))}
    assert {each.data_ptr() for each in kept} == sources
    exact, *weights = (each.detach().double().requires_grad_() for each in (x, *(layer.weight for layer in layers)))
    second = []
    for result, source in ((out, x), (F.linear(exact, torch.cat(weights)), exact)):
        (first,) = torch.autograd.grad(result.square().sum(), source, create_graph=True)
        wanted = layers[1].weight if source is x else weights[1]
        second += torch.autograd.grad(first.square().sum(), wanted)
    assert difference(*second) < 1e-5


def test_a_layer_with_a_hook_is_computed_by_itself() -> None:
    layers = [Linear(4, 4), Linear(4, 4)]
    seen: list[Tensor] = []
    layers[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    _, second = joined_linear(torch.ones(2, 4), layers)
    assert seen[0] is second


def test_the_fused_cross_entropy_is_pytorchs(name: str) -> None:
    hidden, weight = random(50, 24), random(2000, 24)
    targets = torch.arange(50) * 7
    exact = [each.detach().double().requires_grad_() for each in (hidden, weight)]
    loss, expected = linear_cross_entropy(hidden, weight, targets), F.cross_entropy(F.linear(*exact), targets)
    found = torch.autograd.grad(loss.mean(), (hidden, weight))
    assert difference(loss.mean(), expected) < 1e-6
    for one, other in zip(found, torch.autograd.grad(expected, exact), strict=True):
        assert difference(one, other) < 2e-6


@pytest.mark.parametrize("config", [TINY_GPT2, TINY_CLEAR], ids=["gpt2", "clear"])
def test_training_does_not_depend_on_the_backend_but_for_rounding(name: str, config: Any) -> None:
    losses = []
    for chosen in ("mkl", name):
        settings: Any = TrainingSettings(batch_size=4, precision="fp32", device="cpu", matmul=chosen)
        data = SimpleNamespace(ids=np.arange(4000) * 7 % config.vocab)
        trainer = Trainer(build(config, seed=1), Causal(), data, settings, steps=6)
        losses.append([result.loss for result in trainer])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("name", AVAILABLE[-1:], indirect=True)
def test_a_compiled_or_exported_layer_has_no_operator_of_onednn(name: str) -> None:
    program = torch.export.export(Linear(24, 40), (torch.ones(32, 24),))
    assert "mkldnn" not in str(program.graph)


def settings(text: Path, out: Path, **more: Any) -> dict[str, Any]:
    training = {
        "batch_size": 8, "context": 16, "precision": "fp32", "threads": 1, "device": "cpu", "save_steps": 3,
        "eval_steps": 3, "eval_tokens": 200, "warmup_steps": 0, "schedule": "constant",
    }  # fmt: skip
    model = {"name": "clear", "width": 32, "layers": 1, "heads": 2}
    return {"model": model, "tokenizer": "bytes", "out": out, **more, "training": {**training, **more["training"]}}


def losses(run: Path) -> list[float]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["kind"] == "step"]


def test_a_run_keeps_the_backend_that_it_started_with(name: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The same tools, the same numbers.\n" * 300)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(text, **settings(text, whole, steps=6, training={"matmul": name}))
    train(text, **settings(text, parts, steps=3, training={"matmul": name}))
    assert yaml.safe_load((parts / "config.yaml").read_text())["training"]["matmul"] == name
    other = "mkl" if name != "mkl" else AVAILABLE[-1]
    with backend.using_backend(other):
        train(text, **settings(text, parts, steps=6, resume=True, training={}))
    assert yaml.safe_load((parts / "config.yaml").read_text())["training"]["matmul"] == name
    assert losses(parts) == losses(whole)


def measurement(speed: float, cpu_share: float = 1.0) -> Measurement:
    """A measurement in which oneDNN has this speed, and MKL 100."""
    return Measurement({product: {"mkl": 100.0, "onednn": speed} for product in backend.PRODUCTS}, cpu_share)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "clearstory"


FILE = backend.SPEEDS_FILE


def test_the_measurement_is_made_once_a_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    calls = []
    table = measurement(250).table

    def measure(threads: int) -> Any:
        return FILE.once(threads, lambda: calls.append(1) or measurement(250))  # type: ignore[func-returns-value]

    assert [measure(1), measure(1), measure(2)] == [table] * 3
    assert len(calls) == 2  # one for each number of threads
    cached = folder / FILE.name
    for damage in ("", "{", "[]", '{"a": 1}', cached.read_text().replace("250", '"fast"'), "9" * 2**21):
        cached.write_text(damage)
        assert measure(1) == table
    assert len(calls) == 8
    cached.unlink()
    cached.parent.rmdir()
    cached.parent.write_text("a file where the folder should be")
    assert measure(1) == table
    assert FILE.again(1, lambda: measurement(90)) == (measurement(90), None)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(measurement_cache.durable, "user_cache_folder", lambda: None)
    assert measure(1) == table


def test_another_processs_measurement_is_taken_over(folder: Path) -> None:
    def slow_measurement() -> Measurement:
        FILE.once(1, lambda: measurement(90))  # the other process
        return measurement(250)

    assert FILE.once(1, slow_measurement) == measurement(90).table


def test_what_was_measured_on_a_busy_machine_is_used_and_not_kept(folder: Path) -> None:
    assert FILE.once(1, lambda: measurement(250, cpu_share=0.5)) == measurement(250).table
    assert FILE.once(1, lambda: measurement(90)) == measurement(90).table
    assert FILE.once(1, lambda: measurement(250)) == measurement(90).table


def test_a_machine_is_measured_again_until_nothing_disturbs(folder: Path) -> None:
    FILE.once(1, lambda: measurement(250))
    FILE.once(2, lambda: measurement(150))
    busy = measurement(70, cpu_share=0.5)
    assert FILE.again(1, lambda: busy) == (busy, None)
    assert FILE.once(1, lambda: busy) == measurement(250).table
    results = iter([busy, busy, measurement(90)])
    assert FILE.again(1, lambda: next(results)) == (measurement(90), folder / FILE.name)
    assert FILE.once(1, lambda: busy) == measurement(90).table
    assert FILE.once(2, lambda: busy) == measurement(150).table


def test_the_fastest_of_several_rounds_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    waits = iter([0.02, 0.0, 0.02])

    def disturbed() -> None:
        time.sleep(next(waits))  # the second round alone has the CPU
        sum(range(20_000))

    measured = fastest_of({("a", "b"): disturbed}, 3, lambda seconds: 1e6 * seconds)
    assert 0 < measured.table["a"]["b"] < 2e4
    assert measured.is_reliable or measured.cpu_share < 0.8  # the machine of the test may be busy
    asleep = fastest_of({("a", "b"): lambda: time.sleep(0.02)}, 2, lambda seconds: 1e6 * seconds)
    assert asleep.table["a"]["b"] >= 2e4
    assert not asleep.is_reliable


def test_doctor_measures_again_and_says_so(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from clearstory.recipes import doctor

    monkeypatch.setattr(kernels, "has_onednn", lambda: True)
    monkeypatch.setattr(fastest_precision, "has_choice", lambda: True)
    times = Measurement({rows: {"fp32": 20.0, "fp16": 10.0} for rows in ("1", "8")}, 1.0)
    monkeypatch.setattr(fastest_precision, "measure_decoding_times", lambda: times)
    for cache in (backend.measured_speeds, backend._fastest_here, fastest_precision.decoding_times):
        monkeypatch.setattr(cache.__module__ + "." + cache.__name__, functools.cache(cache.__wrapped__))

    def measured(speed: float, cpu_share: float = 1.0) -> tuple[str, str, Any]:
        monkeypatch.setattr(backend, "measure_speeds", lambda: measurement(speed, cpu_share))
        finding = doctor.measure_kernels_again()
        return finding.verdict, finding.sentence, doctor.check_matmul_backend().values["backend"]

    replaced = f"measured again; matmul.json and precision.json in {folder} replaced"
    assert measured(50) == ("good", replaced, "mkl")
    assert measured(250) == ("good", replaced, "onednn")
    assert "--precision auto means fp16" in doctor.check_decoding_precision().sentence
    verdict, sentence, chosen = measured(50, cpu_share=0.45)
    assert (verdict, chosen) == ("note", "onednn")
    assert "only 45% of the CPU time was available: earlier speeds are kept" in sentence
    shutil.rmtree(folder)
    folder.write_text("a file where the folder should be")
    assert measured(50)[:2] == ("note", "measured again, but the cache folder cannot be written")


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ((100, 250, 100, 250), "onednn"),
        ((100, 110, 100, 60), "mixed"),
        ((100, 80, 100, 250), "onednn"),
        ((100, 101, 100, 101), "mkl"),  # within what measurements scatter
        ((100, 50, 100, 50), "mkl"),
    ],
)
def test_the_fastest_backend_is_chosen(speeds: tuple[float, ...], expected: str) -> None:
    mkl, onednn, weight_mkl, weight_onednn = speeds
    forward = {"mkl": mkl, "onednn": onednn}
    table = {"forward": forward, "input_gradient": forward}
    assert (
        backend.fastest_backend({**table, "weight_gradient": {"mkl": weight_mkl, "onednn": weight_onednn}}) == expected
    )


def test_a_torch_without_onednn_uses_its_own_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "has_onednn", lambda: False)
    assert backend.fastest_backend(backend.measured_speeds.__wrapped__(1)) == "mkl"
    with pytest.raises(BadSetting, match=r"training\.matmul is onednn, but this build of torch has no oneDNN"):
        backend.resolve_backend("onednn", "training.matmul")


def test_lens_and_export_see_plain_weights(name: str) -> None:
    model = build(TINY_GPT2, seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(TokenBatch(torch.arange(20)[None]))
    assert all(type(each) is nn.Parameter for each in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
