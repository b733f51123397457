"""Laws of the trainer: a step does not depend on micro-batches, interruptions or what is done between steps."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clearstory.errors import BadInput, BadSetting, CheckpointMismatch, Diverged
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.models.transformer.presets import CLEAR, NANOGPT_CHAR
from clearstory.training.batches import StreamBatches, WindowBatches
from clearstory.training.objectives.causal import Causal
from clearstory.training.optimizers import SGD, AdamW, Muon, lr_factor, orthogonalize
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer

TINY = replace(CLEAR, vocab=20, context=8, width=16, layers=2, heads=2, kv_heads=1, head_dim=8, intermediate_size=24)
TINY_GPT = replace(
    NANOGPT_CHAR, vocab=20, context=8, width=16, layers=2, heads=2, kv_heads=2, head_dim=8, intermediate_size=32
)
TINY_LSTM = RecurrentConfig(vocab=20, width=6, hidden_size=10, layers=2, dropout=0.2, weight_drop=0.2)
SETTINGS = TrainingSettings(batch_size=4, warmup_steps=2, precision="fp32", compile="off", device="cpu")


def dataset(count: int = 400, vocab: int = 20) -> Any:
    return SimpleNamespace(ids=np.random.default_rng(0).integers(0, vocab, count).astype(np.uint16))


def documents(*sizes: int) -> Any:
    """Documents whose tokens count up from 1, each ended by 0."""
    ids = np.concatenate([[*range(1, size), 0] for size in sizes]).astype(np.uint16)
    return SimpleNamespace(ids=ids, starts=np.cumsum([0, *sizes]))


def trainer(config: Any = TINY, settings: TrainingSettings = SETTINGS, steps: int = 6, **kind: Any) -> Trainer:
    model = build(config, seed=settings.seed)
    return Trainer(model.to(**kind), Causal(), dataset(), settings, steps=steps)


@pytest.mark.parametrize("config", [TINY, replace(TINY_LSTM, dropout=0.0, weight_drop=0.0)], ids=["clear", "lstm"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_micro_batches_give_the_loss_of_one(config: Any, optimizer: Any) -> None:
    whole = trainer(config, settings=replace(SETTINGS, context=8, optimizer=optimizer), dtype=torch.float64)
    parts = trainer(
        config,
        settings=replace(SETTINGS, context=8, optimizer=optimizer, batch_size=1, gradient_accumulation_steps=4),
        dtype=torch.float64,
    )
    for one, four in zip(whole, parts, strict=True):
        assert four.loss == pytest.approx(one.loss, rel=1e-9)
        assert four.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize(
    "config",
    [replace(TINY, dropout=0.1), TINY_LSTM, replace(TINY, recall=(2, 3), recall_rows=16, recall_dim=3)],
    ids=["clear", "lstm", "recall"],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(config: Any, optimizer: Any, precision: Any) -> None:
    settings = replace(
        SETTINGS, context=8, optimizer=optimizer, gradient_accumulation_steps=2, precision=precision, weight_average=0.9
    )
    straight = trainer(config, settings, steps=7)
    losses = [p.loss for p in straight]
    first = trainer(config, settings, steps=7)
    before = [first.train_step().loss for _ in range(3)]
    tensors, values = first.checkpoint_state()
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    torch.randn(5)  # random draws between steps do not matter
    second = trainer(config, replace(settings), steps=99)
    second.load_checkpoint_state(saved, values)
    after = [p.loss for p in second]
    assert before + after == losses
    for name, value in straight.checkpoint_state()[0].items():
        assert torch.equal(value, second.checkpoint_state()[0][name]), name


def test_a_state_of_another_model_is_refused() -> None:
    tensors, values = trainer().checkpoint_state()
    with pytest.raises(CheckpointMismatch, match=r"attention.key.weight.*\(8, 16\).*\(8, 32\)"):
        trainer(replace(TINY, width=32)).load_checkpoint_state(tensors, values)


@pytest.mark.parametrize("config", [TINY, TINY_GPT], ids=["clear", "gpt"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_on_eight_rows_drives_the_loss_down(config: Any, optimizer: Any) -> None:
    settings = replace(SETTINGS, optimizer=optimizer, batch_size=8, learning_rate=2e-2, weight_decay=0.0)
    model = build(config, seed=0)
    few = Trainer(model, Causal(), dataset(8 * 8 + 1), settings, steps=100)
    losses = [p.loss for p in few]
    assert losses[0] == pytest.approx(np.log(20), abs=0.2)  # an untrained model: ln V
    # 64 of the tokens are predictable from what came before them in the same row; the first of a row is not.
    assert losses[-1] < 1.0


def test_a_loss_that_is_not_finite_stops_before_the_weights_change() -> None:
    sick = trainer()
    with torch.no_grad():
        sick.model.blocks[0].attention.query.weight[0, 0] = torch.nan  # type: ignore[union-attr,index]
    before = {name: value.clone() for name, value in sick.model.state_dict().items()}
    with pytest.raises(Diverged, match="at step 1; the weights of step 0 are kept"):
        sick.train_step()
    after = sick.model.state_dict()
    assert all(torch.equal(before[name].nan_to_num(7), after[name].nan_to_num(7)) for name in before)


def test_batches_that_do_not_fit_a_gpu_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    full = trainer()

    def loss(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Causal, "loss", loss)
    with pytest.raises(BadSetting, match=r"4 sequences of 8 tokens do not fit .* cpu; lower --training.batch_size"):
        full.train_step()


def test_random_draws_are_a_function_of_seed_and_step() -> None:
    config = replace(TINY, dropout=0.5)
    losses = [[p.loss for p in trainer(config, replace(SETTINGS, seed=seed), steps=2)] for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_every_epoch_reads_every_window_once_and_epochs_differ() -> None:
    windows = WindowBatches(dataset(101), context=10, batch_size=3, seed=0)
    assert windows.windows_per_epoch == 9
    first = np.concatenate([windows.batch(i).tokens.ids.numpy() for i in range(3)])
    starts = sorted(windows.starts(0))
    assert np.array_equal(np.diff(starts), [10] * 8)
    assert len(np.unique(first, axis=0)) == 9
    assert not np.array_equal(windows.starts(0), windows.starts(1))


def test_aligned_windows_begin_with_every_document_but_the_first_once_an_epoch() -> None:
    windows = WindowBatches(documents(5, 3, 12, 4, 4, 4), context=5, batch_size=2, seed=0, align_documents=True)
    # With the 0 before them, the twelve tokens of the third need windows at 0, 5 and 10 of it. The last document
    # ends with the text: a window of five, and its last target, would be two more than its four.
    assert windows.windows_per_epoch == 1 + 3 + 1 + 1
    epochs = [sorted(windows.starts(epoch).tolist()) for epoch in (0, 1)]
    assert epochs == [[4, 7, 12, 17, 19, 23]] * 2
    assert not np.array_equal(windows.starts(0), windows.starts(1))
    read = torch.cat([windows.batch(i).tokens.ids for i in range(3)]).tolist()
    assert sorted(read) == sorted(
        [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 0, 1, 2], [0, 1, 2, 3, 0], [0, 1, 2, 3, 0]]
    )


def test_aligned_windows_are_no_longer_than_the_longest_document_unless_set() -> None:
    text, settings = documents(5, 7, 4), replace(SETTINGS, align_documents=True)
    model = build(TINY, seed=0)  # of a context of 8
    assert [Trainer(model, Causal(), text, s, steps=1).context for s in (settings, replace(settings, context=3))] == [
        7,
        3,
    ]
    assert Trainer(model, Causal(), text, SETTINGS, steps=1).context == 8
    assert Trainer(build(TINY_LSTM, seed=0), Causal(), dataset(), replace(settings, context=8), steps=1).stateful


def test_too_few_documents_to_align_with_are_refused() -> None:
    with pytest.raises(
        BadInput, match=r"no document except the first starts a window of 5 .* --training.align_documents false"
    ):
        WindowBatches(documents(9, 4), context=5, batch_size=1, seed=0, align_documents=True)


@pytest.mark.parametrize("align_documents", [False, True])
def test_batches_do_not_depend_on_earlier_calls(align_documents: bool) -> None:
    text = documents(*[7, 12, 30] * 5)
    one, other = (
        WindowBatches(text, context=8, batch_size=4, seed=3, align_documents=align_documents) for _ in range(2)
    )
    late = one.batch(40)
    for i in (40, 3, 0):
        other.batch(i)
    assert torch.equal(late.tokens.ids, other.batch(40).tokens.ids)
    assert torch.equal(late.targets[:, :-1], late.tokens.ids[:, 1:])


def test_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(BadInput, match=r"8 tokens, but one window needs 9"):
        WindowBatches(dataset(8), context=8, batch_size=1, seed=0)


def test_streams_continue_where_they_ended_and_epochs_differ() -> None:
    text = dataset(203)
    streams = StreamBatches(text, context=10, batch_size=4, seed=0)
    assert (streams.stream_length, streams.batches_per_epoch) == (50, 4)
    batches = [streams.batch(i) for i in range(5)]
    assert [streams.continues(i) for i in range(5)] == [False, True, True, True, False]
    for before, after in pairwise(batches[:4]):
        assert torch.equal(before.targets[:, -1], after.tokens.ids[:, 0])
    whole = torch.cat([batch.tokens.ids for batch in batches[:4]], 1)
    row = torch.from_numpy(text.ids.astype(np.int64))
    begin = next(at for at in range(10) if torch.equal(row[at : at + 40], whole[0]))
    for stream in range(4):
        assert torch.equal(whole[stream], row[begin + 50 * stream :][:40])
    assert not torch.equal(batches[0].tokens.ids, batches[4].tokens.ids)


def test_text_shorter_than_the_streams_is_refused() -> None:
    with pytest.raises(BadInput, match=r"33 tokens, but 4 streams of 9 need 37"):
        StreamBatches(dataset(33), context=9, batch_size=4, seed=0)


def test_the_state_is_kept_from_batch_to_batch_until_the_epoch_ends() -> None:
    model = build(replace(TINY_LSTM, dropout=0.0, weight_drop=0.0), seed=0).double()
    still = Trainer(
        model, Causal(), dataset(), replace(SETTINGS, context=8, learning_rate=1e-12, weight_decay=0.0), steps=3
    )
    losses = [p.loss for p in still]
    pieces = [still.batches.batch(i) for i in range(3)]
    ids, targets = (
        torch.cat(each, 1) for each in ([p.tokens.ids for p in pieces], [p.targets for p in pieces])
    )  # fmt: skip
    with torch.no_grad():
        nats, _ = model.token_nll(TokenBatch(ids), targets, model.init_state(4))
        alone, _ = model.token_nll(pieces[2].tokens, pieces[2].targets)
    assert losses == pytest.approx([float(part.mean()) for part in nats.split(8, 1)], rel=1e-6)
    assert losses[2] != pytest.approx(float(alone.mean()), rel=1e-6)


def test_without_stateful_training_windows_are_shuffled() -> None:
    apart = trainer(TINY_LSTM, replace(SETTINGS, context=8, stateful=False))
    assert isinstance(apart.batches, WindowBatches)
    apart.train_step()
    assert apart.state is None


def test_weights_are_averaged_over_the_last_steps() -> None:
    one = trainer(settings=replace(SETTINGS, weight_average=0.5), steps=6)
    seen = []
    for _ in one:
        seen.append(one.model.norm.weight.detach().clone())  # type: ignore[union-attr,operator]
    with one.averaged_weights():
        torch.testing.assert_close(one.model.norm.weight.detach(), torch.stack(seen[3:]).mean(0))  # type: ignore[union-attr,operator]
    assert torch.equal(one.model.norm.weight, seen[-1])  # type: ignore[arg-type]


def test_sgd_equals_torchs() -> None:
    start = torch.randn(6, 4)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = SGD([{"params": [ours], "weight_decay": 0.1}], lr=0.3)
    torchs = torch.optim.SGD([theirs], lr=0.3, weight_decay=0.1)
    for _ in range(3):
        ours.grad = torch.randn(6, 4)
        theirs.grad = ours.grad.clone()
        mine.step()
        torchs.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(16, 16), (24, 8), (8, 24)])
def test_muon_equals_torchs_where_it_computes_in_fp32(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([ours], lr=0.02, weight_decay=0.1)
    torchs = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1)
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        mine.step()
        torchs.step()
    # torch orthogonalises in bf16, whose steps are 1/256: the updates agree to about two of them
    moved = (ours - start).norm()
    assert float((ours - theirs).detach().norm() / moved.detach()) < 0.02


def test_adamw_equals_torchs() -> None:
    start = torch.randn(5, 7)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = AdamW([{"params": [ours], "weight_decay": 0.1}], lr=0.02, betas=(0.9, 0.99), eps=1e-8)
    torchs = torch.optim.AdamW([theirs], lr=0.02, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, fused=True)
    for _ in range(3):
        ours.grad = torch.randn(5, 7)
        theirs.grad = ours.grad.clone()
        mine.step()
        torchs.step()
    assert torch.equal(ours, theirs)
    assert all(torch.equal(mine.state[ours][key], value) for key, value in torchs.state[theirs].items())


def test_training_starts_without_torchs_compiler() -> None:
    """Importing it takes about two seconds, which a run of a minute would miss."""
    code = """
import sys, torch
from types import SimpleNamespace
from clearstory.models.build import build
from clearstory.models.transformer.presets import NANOGPT_CHAR
from clearstory.training.objectives.causal import Causal
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer
dataset = SimpleNamespace(ids=torch.arange(64).numpy())
settings = TrainingSettings(batch_size=1, context=8, optimizer="muon", muon_learning_rate=0.01)
list(Trainer(build(NANOGPT_CHAR, seed=1), Causal(), dataset, settings, steps=2))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_orthogonalizing_brings_singular_values_near_one() -> None:
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, 12, 20)))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3


def kinds() -> list[Any]:
    schedules: list[Any] = ["cosine", "linear", "constant", "wsd"]
    return [replace(SETTINGS, schedule=s, warmup_steps=4, final_learning_rate=0.1) for s in schedules]


@pytest.mark.parametrize("settings", kinds(), ids=lambda s: s.schedule)
def test_schedules_rise_to_one_and_end_low(settings: Any) -> None:
    rates = [lr_factor(step, 100, settings) for step in range(101)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(a >= b for a, b in pairwise(rates[4:]))
    assert rates[100] == pytest.approx(1.0 if settings.schedule == "constant" else 0.1)


def test_cosine_is_half_way_down_half_way_through() -> None:
    # 0 + (1 - 0) · ½ (1 + cos(π/2)) = ½
    assert lr_factor(50, 100, replace(SETTINGS, warmup_steps=0, final_learning_rate=0.0)) == pytest.approx(0.5)
