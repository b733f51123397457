"""The metrics log and the loss monitor: no finished line is lost, no undone one is kept, and warnings come in time."""

from __future__ import annotations

import errno
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearstory import durable
from clearstory.errors import OutOfSpace
from clearstory.training.metrics_log import LossMonitor, MetricsLog, read_metrics


@pytest.fixture(autouse=True)
def _no_hooks() -> Iterator[None]:
    yield
    durable.hooks.clear()


def written(path: Path, steps: int) -> Path:
    """A log of some steps, with an evaluation at every second and an end."""
    log = MetricsLog(path)
    for step in range(1, steps + 1):
        log.write(kind="step", step=step, loss=1 / step)
        if step % 2 == 0:
            log.write(kind="evaluation", step=step, nats_per_token=2 / step)
    log.write(kind="end", step=steps, nats_per_token=0.5)
    log.close()
    return path


def test_a_resumed_log_holds_what_was_written_up_to_the_checkpoint(tmp_path: Path) -> None:
    path = written(tmp_path / "metrics.jsonl", 5)
    MetricsLog(path, since=3).close()
    assert [(row["kind"], row["step"]) for row in read_metrics(path)] == [
        ("step", 1),
        ("step", 2),
        ("evaluation", 2),
        ("step", 3),
    ]
    assert [row["loss"] for row in read_metrics(path) if row["kind"] == "step"] == [1 / step for step in (1, 2, 3)]


def test_an_end_is_not_kept_when_a_run_resumes(tmp_path: Path) -> None:
    path = written(tmp_path / "metrics.jsonl", 4)
    MetricsLog(path, since=4).close()
    assert [row["kind"] for row in read_metrics(path)] == ["step", "step", "evaluation", "step", "step", "evaluation"]


def test_a_new_log_is_empty(tmp_path: Path) -> None:
    path = written(tmp_path / "metrics.jsonl", 4)
    MetricsLog(path).close()
    assert path.read_bytes() == b""


def test_a_half_written_last_line_is_skipped_and_gone_when_the_run_resumes(tmp_path: Path) -> None:
    path = written(tmp_path / "metrics.jsonl", 2)
    whole = path.read_bytes()
    last = json.dumps({"kind": "step", "step": 3, "loss": 0.25}).encode()
    for cut in range(1, len(last)):
        path.write_bytes(whole + last[:cut])
        assert [row["step"] for row in read_metrics(path)] == [1, 2, 2, 2]
    log = MetricsLog(path, since=2)
    log.write(kind="step", step=3, loss=0.5)
    log.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 2, 3]


def test_a_line_is_on_its_way_to_disk_when_write_returns(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(kind="step", step=1, loss=0.1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"kind": "step", "step": 1, "loss": 0.1}\n'
    log.close()


def test_a_missing_log_has_no_records(tmp_path: Path) -> None:
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == []


def test_a_full_disk_is_reported_and_the_lines_before_are_kept(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(kind="step", step=1, loss=0.1)

    def full(label: str, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    durable.hooks.append(full)
    with pytest.raises(OutOfSpace, match=r"metrics\.jsonl needs more than 41 bytes"):
        log.write(kind="step", step=2, loss=0.1)
    log.close()
    assert [row["step"] for row in read_metrics(log.path)] == [1]


def learning(step: int, rng: random.Random) -> float:
    """A good run's loss: from ln 67 = 4.2 nats down to 1.5, with the noise of small batches."""
    return 1.5 + 2.7 * math.exp(-step / 300) + rng.gauss(0, 0.15)


def warnings(losses: list[float]) -> list[tuple[int, str]]:
    """The steps with a warning, and the warnings."""
    monitor = LossMonitor()
    said = [(step, monitor.check_loss(step, loss)) for step, loss in enumerate(losses, start=1)]
    return [(step, sentence) for step, sentence in said if sentence]


@pytest.mark.parametrize("seed", range(5))
def test_a_good_run_gets_no_warning(seed: int) -> None:
    rng = random.Random(seed)
    assert warnings([learning(step, rng) for step in range(3000)]) == []


def test_a_flat_noisy_run_gets_no_warning() -> None:
    rng = random.Random(0)
    assert warnings([4.2 + rng.gauss(0, 0.3) for _ in range(3000)]) == []


def test_a_diverging_loss_gets_one_warning_in_time() -> None:
    rng = random.Random(0)
    losses = [learning(step, rng) + max(0.0, (step - 1000) / 100) for step in range(1500)]
    said = warnings(losses)
    assert len(said) == 1
    step, sentence = said[0]
    # Climbing by 0.01 nats a step from 1.6; smoothed over some twenty steps, 0.32 nats of climb are seen by step 1,100.
    assert 1000 < step < 1100
    assert sentence.startswith("diverging: the loss is ")
    assert "--training.learning_rate" in sentence


def test_the_first_steps_may_be_noisy() -> None:
    assert warnings([4.0, 3.0, 9.0, *[9.0] * 40]) == []


def validation_warnings(curve: list[tuple[float, float]], has_dropout: bool = True) -> list[str]:
    """The warnings for a curve of (training, validation) losses."""
    monitor, said = LossMonitor(), []
    for number, (training, validation) in enumerate(curve):
        monitor.smoothed = training
        said.append(monitor.check_validation(100 * number, validation, has_dropout=has_dropout))
    return [sentence for sentence in said if sentence]


def test_validation_that_rises_while_training_falls_is_overfitting_reported_once() -> None:
    curve = [(3.0, 3.0), (2.0, 2.2), (1.6, 2.0), (1.3, 2.1), (1.0, 2.2), (0.8, 2.4), (0.6, 2.6)]
    (sentence,) = validation_warnings(curve)
    # The three evaluations after step 200 each rose.
    assert sentence.startswith("overfitting since step 200: validation rose from 2.000 to 2.400 nats")
    assert sentence.endswith("the best model is kept; more text, --model.dropout or --training.patience 3 can help")
    (sentence,) = validation_warnings(curve, has_dropout=False)
    assert sentence.endswith("the best model is kept; more text or --training.patience 3 can help")


@pytest.mark.parametrize(
    "curve",
    [
        [(3.0 / n, 3.0 / n + 0.2) for n in range(1, 20)],  # both fall
        [(1.0, 2.0), (0.9, 2.1), (0.8, 2.0), (0.7, 2.1), (0.6, 2.0), (0.5, 2.1)],  # up and down
        [(1.0, 2.0), (1.1, 2.1), (1.2, 2.2), (1.3, 2.3), (1.4, 2.4)],  # both rise: that is the other warning's
    ],
    ids=["both fall", "up and down", "both rise"],
)
def test_other_curves_are_not_overfitting(curve: list[tuple[float, float]]) -> None:
    assert validation_warnings(curve) == []


def test_a_monitor_survives_a_checkpoint() -> None:
    rng = random.Random(0)
    losses = [learning(step, rng) + max(0.0, (step - 1000) / 100) for step in range(1500)]
    straight = LossMonitor()
    said = [straight.check_loss(step, loss) for step, loss in enumerate(losses)]
    first = LossMonitor()
    before = [first.check_loss(step, loss) for step, loss in enumerate(losses[:700])]
    second = LossMonitor()
    vars(second).update(json.loads(json.dumps(vars(first))))
    after = [second.check_loss(step + 700, loss) for step, loss in enumerate(losses[700:])]
    assert before + after == said
