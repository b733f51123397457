"""The laws on a GPU: numbers, memory, training and resuming. Skipped without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import clearstory
from clearstory.errors import CannotDo
from clearstory.evaluation.windows import score_dataset
from clearstory.generation.decoding_batch import CacheBatch
from clearstory.generation.engine import Engine, Token, generate
from clearstory.generation.settings import Sampling
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build
from clearstory.models.device import resolve_device
from clearstory.models.hmm.config import HMMConfig
from clearstory.models.inference_model import inference_model
from clearstory.models.transformer.batched_decoding import BatchedDecoder
from clearstory.models.transformer.presets import T5_SMALL
from clearstory.recipes.doctor import doctor
from clearstory.recipes.planning.plan import plan
from clearstory.training.count_trainer import CountTrainer
from clearstory.training.objectives.causal import Causal
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer
from tiny import MODELS, TINY_CLEAR, TINY_GPT2, TINY_HMM, TINY_LSTM, TINY_RECALL, VOCAB, shaken

if not torch.cuda.is_available():
    pytest.skip("there is no GPU that CUDA knows here", allow_module_level=True)

DEVICE = "cuda"
IDS = torch.randint(VOCAB, (3, 20), generator=torch.Generator().manual_seed(7))
SETTINGS = TrainingSettings(batch_size=8, warmup_steps=2, weight_decay=0.0, precision="fp32", compile="off")

# Wide and long enough for the fused attention that real models are trained with.
WIDE = replace(TINY_CLEAR, context=160, width=64, heads=2, kv_heads=1, head_dim=32, intermediate_size=96, dropout=0.1)
LSTM = replace(TINY_LSTM, width=24, hidden_size=32)
DROPPING = replace(TINY_LSTM, dropout=0.2, dropout_input=0.1, dropout_embedding=0.1, weight_drop=0.2)

LEARNERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2": (TINY_GPT2, {"learning_rate": 1e-2}),
    "clear": (TINY_CLEAR, {"learning_rate": 1e-2, "optimizer": "muon"}),
    "recalling": (TINY_RECALL, {"learning_rate": 1e-2, "optimizer": "muon"}),
    "rnn": (replace(LSTM, cell="rnn"), {"learning_rate": 3e-2}),
    "gru": (replace(LSTM, cell="gru"), {"learning_rate": 3e-2}),
    "lstm": (LSTM, {"learning_rate": 3e-2}),
    "adaptive": (replace(LSTM, cutoffs=(5, 12)), {"learning_rate": 3e-2, "optimizer": "muon"}),
    "hmm": (replace(TINY_HMM, learn="gradient"), {"learning_rate": 0.2}),
    "blocks": (replace(TINY_HMM, learn="gradient", blocks=4), {"learning_rate": 0.2}),
}


@pytest.fixture(scope="module", autouse=True)
def _ready() -> None:
    resolve_device(DEVICE)


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]().to(DEVICE).requires_grad_(False)


def rows(count: int = 400) -> Any:
    return SimpleNamespace(ids=np.random.default_rng(0).integers(0, VOCAB, count).astype(np.uint16))


def trainer(config: Any, settings: TrainingSettings, *, steps: int, text: Any = None) -> Trainer:
    model = build(config, seed=settings.seed, device=DEVICE)
    return Trainer(model, Causal(), text or rows(4000), settings, steps=steps)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", LEARNERS)
def test_training_on_eight_sequences_reduces_the_loss(name: str, precision: Any) -> None:
    config, given = LEARNERS[name]
    settings = replace(SETTINGS, context=8, stateful=False, precision=precision, **given)
    losses = [p.loss for p in trainer(config, settings, steps=80, text=rows(8 * 8 + 1))]
    assert losses[0] is not None
    assert losses[-1] is not None
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_the_cpus(name: str) -> None:
    here = MODELS[name]().float().requires_grad_(False)
    there = MODELS[name]().float().requires_grad_(False).to(DEVICE)
    wanted = here.logits(here.forward(TokenBatch(IDS))[0])
    found = there.logits(there.forward(TokenBatch(IDS.to(DEVICE)))[0]).cpu()
    assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("config", [WIDE, TINY_RECALL, DROPPING], ids=["clear", "recalling", "lstm"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(config: Any, optimizer: Any, precision: Any) -> None:
    settings = replace(
        SETTINGS, context=min(getattr(config, "context", 64), 128), optimizer=optimizer, precision=precision,
        batch_size=4, gradient_accumulation_steps=2, weight_average=0.9,
    )  # fmt: skip
    straight = trainer(config, settings, steps=7)
    losses = [p.loss for p in straight]
    first = trainer(config, settings, steps=7)
    before = [first.advance().loss for _ in range(3)]
    tensors, values = first.checkpoint_state()
    saved = {name: tensor.cpu().clone() for name, tensor in tensors.items()}  # as they come from a file
    torch.randn(5, device=DEVICE)
    second = trainer(config, settings, steps=99)
    second.load_checkpoint_state(saved, values)
    assert before + [p.loss for p in second] == losses
    for name, value in straight.checkpoint_state()[0].items():
        assert torch.equal(value, second.checkpoint_state()[0][name]), name


def test_micro_batches_give_the_loss_of_one() -> None:
    whole = trainer(TINY_CLEAR, replace(SETTINGS, context=8), steps=4)
    parts = trainer(TINY_CLEAR, replace(SETTINGS, context=8, batch_size=2, gradient_accumulation_steps=4), steps=4)
    for one, four in zip(whole, parts, strict=True):
        assert four.loss == pytest.approx(one.loss, rel=1e-4)


def test_fitting_rounds_equal_the_cpus() -> None:
    text = SimpleNamespace(ids=rows(1500).ids, starts=np.array([0, 1500]), byte_lengths=np.ones(VOCAB))
    nats = {}
    for device in ("cpu", DEVICE):
        model = build(HMMConfig(vocab=VOCAB, states=6), seed=1).to(device)
        nats[device] = [p.loss for p in CountTrainer(model, text, SETTINGS, steps=4)]
    assert nats[DEVICE] == pytest.approx(nats["cpu"], rel=1e-4)
    assert nats[DEVICE][-1] < nats[DEVICE][0]


@pytest.mark.parametrize("cuts", [[1] * 20, [7, 1, 12], [4, 6, 10]])
def test_processing_in_pieces_equals_processing_at_once(model: Any, cuts: list[int]) -> None:
    ids = IDS.to(DEVICE)
    whole = model.logits(model.forward(TokenBatch(ids))[0])
    state, pieces = model.init_state(3), []
    for piece in ids.split(cuts, 1):
        hidden, state = model.forward(TokenBatch(piece), state)
        pieces.append(model.logits(hidden))
    assert_close(torch.cat(pieces, 1), whole, rtol=1e-9, atol=1e-9)
    assert state.lengths == [20, 20, 20]


def test_a_ragged_batch_equals_its_sequences_alone(model: Any) -> None:
    texts = [IDS[0, :9].tolist(), IDS[1, :2].tolist(), IDS[2, :14].tolist()]
    then = [[1], [2, 3, 4], [5, 6]]
    hidden, state = model.forward(TokenBatch.from_sequences(texts, DEVICE), model.init_state(3))
    more, state = model.forward(TokenBatch.from_sequences(then, DEVICE), state)
    assert state.lengths == [10, 5, 16]
    for i, (text, new) in enumerate(zip(texts, then, strict=True)):
        alone = model.forward(TokenBatch.from_sequences([text + new], DEVICE))[0][0]
        assert_close(hidden[i, : len(text)], alone[: len(text)], rtol=1e-9, atol=1e-9)
        assert_close(more[i, : len(new)], alone[len(text) :], rtol=1e-9, atol=1e-9)


def test_token_nll_is_the_log_softmax_of_the_logits(model: Any) -> None:
    ids = IDS.to(DEVICE)
    targets = ids.roll(-1, 1).clone()
    targets[1, 5:9] = IGNORE_INDEX
    logs = model.logits(model.forward(TokenBatch(ids))[0]).log_softmax(-1)
    wanted = -logs.gather(-1, targets.clamp(min=0)[..., None])[..., 0] * (targets != IGNORE_INDEX)
    assert_close(model.token_nll(TokenBatch(ids), targets)[0], wanted, rtol=1e-9, atol=1e-9)


def test_scores_equal_the_cpus(model: Any) -> None:
    text: Any = SimpleNamespace(ids=rows(90).ids, starts=np.array([0, 50, 90]), byte_lengths=np.ones(VOCAB, int))
    there = score_dataset(model, text, batch_size=2)
    here = score_dataset(model.cpu(), text, batch_size=2)
    model.to(DEVICE)
    assert there.nats == pytest.approx(here.nats, rel=1e-9)


REQUESTS = [
    ([3, 1, 4], Sampling(max_tokens=28, temperature=0)),
    ([1], Sampling(max_tokens=20, temperature=0.9, seed=1)),
    ([5] * 20, Sampling(max_tokens=12, top_p=0.8, seed=2)),
    ([9, 9, 8], Sampling(max_tokens=9, min_p=0.1, repetition_penalty=1.2, seed=4)),
]


def test_an_engine_generates_the_same_alone_or_in_a_batch(model: Any) -> None:
    alone = [list(generate(model, prompt, sampling)) for prompt, sampling in REQUESTS]
    engine = Engine(model, max_running=3)
    answers: dict[int, list[Token]] = {engine.add(*request): [] for request in REQUESTS}
    while engine.has_unfinished:
        for reply in engine.next_tokens():
            answers[reply.request].append(reply.token)
    for number, tokens in enumerate(alone):
        assert [token.id for token in answers[number]] == [token.id for token in tokens]
        assert_close([t.logprob for t in answers[number]], [t.logprob for t in tokens], rtol=1e-9, atol=1e-9)


DECODERS: dict[str, Any] = {
    "gpt2": TINY_GPT2,
    "clear": TINY_CLEAR,
    "grouped": replace(TINY_CLEAR, context=160, heads=4, kv_heads=2),
    "windowed": replace(TINY_CLEAR, context=160, sliding_window=5),
    "recalling": TINY_RECALL,
    "relative": replace(TINY_GPT2, positions="relative_bias", heads=4, kv_heads=2, head_dim=8),
    "t5": replace(
        T5_SMALL, vocab=VOCAB, context=24, width=16, layers=2, heads=2, kv_heads=2, head_dim=8, intermediate_size=32
    ),
}


def answers(engine: Engine, source: bool) -> dict[int, list[Token]]:
    """The tokens of requests that arrive one at a time, while others are running."""
    found: dict[int, list[Token]] = {}
    late = list(REQUESTS)
    while late or engine.has_unfinished:
        if late:
            prompt, sampling = late.pop(0)
            found[engine.add([0], sampling, source=prompt) if source else engine.add(prompt, sampling)] = []
        for output in engine.next_tokens():
            found[output.request].append(output.token)
    return found


@pytest.mark.parametrize("name", DECODERS)
def test_a_recorded_graph_generates_what_eager_steps_and_separate_caches_do(name: str) -> None:
    model = shaken(DECODERS[name]).to(DEVICE).requires_grad_(False)
    recorded, eager, separate = Engine(model), Engine(model), Engine(model, _batched=False)
    assert isinstance(recorded.batch, CacheBatch)
    assert isinstance(eager.batch, CacheBatch)
    eager.batch.decoder.graphs = None
    wanted = answers(separate, name == "t5")
    for engine in (eager, recorded):
        found = answers(engine, name == "t5")
        for number, tokens in wanted.items():
            assert [token.id for token in found[number]] == [token.id for token in tokens]
            assert_close([t.logprob for t in found[number]], [t.logprob for t in tokens], rtol=1e-9, atol=1e-9)
    graphs = recorded.batch.decoder.graphs
    assert graphs is not None
    assert graphs.eager_reason is None
    assert graphs.graphs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("config", [replace(WIDE, dropout=0.0), replace(TINY_GPT2, context=900)], ids=["clear", "gpt2"])
def test_recorded_steps_equal_eager_ones_in_every_dtype(config: Any, dtype: torch.dtype) -> None:
    model: Any = build(config, seed=1).to(DEVICE, dtype).eval().requires_grad_(False)
    recorded, eager = BatchedDecoder(model), BatchedDecoder(model)
    eager.graphs = None
    _, state = model.forward(TokenBatch.from_sequences([[1, 2, 3], [4]], DEVICE), model.init_state(2))
    for decoder in (recorded, eager):
        decoder.add(state)
    # Beyond 256 tokens, where one has the context, storage is replaced, and recorded anew.
    for step in range(min(config.context - 4, 300)):
        ids = [(5 * step) % VOCAB, (7 * step) % VOCAB]
        assert_close(recorded.step(ids), eager.step(ids), rtol=1e-3, atol=1e-3)
    assert recorded.graphs is not None
    assert sorted(recorded.graphs.graphs) == [2]


def test_where_recording_fails_steps_are_eager_and_the_reason_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = shaken(TINY_CLEAR).to(DEVICE).requires_grad_(False)
    wanted = [token.id for token in generate(model, [3, 1], Sampling(max_tokens=15, temperature=0))]
    compute = BatchedDecoder.compute

    def waiting(self: BatchedDecoder, rows: int) -> torch.Tensor:
        int(self.inputs[0, 0])  # cannot be recorded: it waits for the GPU
        return compute(self, rows)

    monkeypatch.setattr(BatchedDecoder, "compute", waiting)
    engine, stream = Engine(model), torch.cuda.current_stream()
    number = engine.add([3, 1], Sampling(max_tokens=15, temperature=0))
    found = []
    while engine.has_unfinished:
        found += [output.token.id for output in engine.next_tokens() if output.request == number]
    assert found == wanted
    assert isinstance(engine.batch, CacheBatch)
    assert engine.batch.decoder.graphs is not None
    assert engine.batch.decoder.graphs.eager_reason
    assert torch.cuda.current_stream() == stream


@pytest.mark.parametrize("name", ["gpt2", "clear", "windowed", "lstm"])
def test_bf16_weights_generate(name: str) -> None:
    model = MODELS[name]().to(DEVICE).bfloat16()
    tokens = list(generate(model, [3, 1, 4], Sampling(max_tokens=30, temperature=0)))
    assert len(tokens) == 30


def test_int8_is_refused() -> None:
    with pytest.raises(CannotDo, match=r"packed for the CPU, but the model is on cuda:0; use --device cpu"):
        inference_model(MODELS["gpt2"]().float().to(DEVICE), "int8")


RUNS: dict[str, Callable[[], dict[str, Any]]] = {
    "clear": lambda: {"model": {"name": "clear", "width": 32, "layers": 1}},
    "recall": lambda: {"model": {"name": "recall", "recall_rows": 100}},
    "lstm": lambda: {"model": {"name": "lstm", "width": 16, "hidden_size": 16}},
    "hmm": lambda: {"model": {"name": "hmm", "states": 8}},
    "ngram": lambda: {"model": {"name": "ngram", "order": 3}},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_saves_a_folder_that_opens(name: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("In the beginning was the word, and the word was with the reader. " * 60, encoding="utf-8")
    given = {
        **RUNS[name](), "tokenizer": "characters", "out": tmp_path / "run",
        "data": {"validation": 0.2, "cache": tmp_path / "cache"},
        "training": {"device": DEVICE, "batch_size": 4, "context": 16, "precision": "bf16", "eval_tokens": 100},
    }  # fmt: skip
    clearstory.train(text, steps=2, **given)
    finished = clearstory.train(text, steps=4, resume=True, **given)
    assert finished.steps == {"ngram": 3}.get(name, 4)
    measured = [clearstory.evaluate(finished.folder, text, device=device) for device in ("cpu", DEVICE, "auto")]
    assert [each.score.nats for each in measured] == pytest.approx([measured[0].score.nats] * 3, rel=1e-4)
    written = clearstory.generate(finished.folder, "In", max_tokens=40, temperature=0, device="auto")
    assert written.tokens > 0


def test_doctor_and_plan_report_the_gpu() -> None:
    found = doctor().as_dict()["accelerator"]
    assert found["device"] == "cuda"
    assert found["bytes"] >= found["free"] > 0
    assert found["fp32_gflops"] > 0
    assert [run.hardware.name for run in plan("clear").estimates][-2:] == ["this machine's GPU", "this machine's CPU"]
