"""The record and its watchman: nothing finished is lost, nothing undone is kept, and warnings come when they should."""

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
def _no_listeners() -> Iterator[None]:
    yield
    durable.hooks.clear()


def written(path: Path, steps: int) -> Path:
    """A record of some steps, with a look at every second and an end."""
    record = MetricsLog(path)
    for step in range(1, steps + 1):
        record.write(kind="step", step=step, loss=1 / step)
        if step % 2 == 0:
            record.write(kind="evaluation", step=step, nats_per_token=2 / step)
    record.write(kind="end", step=steps, nats_per_token=0.5)
    record.close()
    return path


def test_a_resumed_record_holds_what_was_written_up_to_the_checkpoint(tmp_path: Path) -> None:
    path = written(tmp_path / "metrics.jsonl", 5)
    MetricsLog(path, since=3).close()
    assert [(row["kind"], row["step"]) for row in read_metrics(path)] == [("step", 1), ("step", 2), ("evaluation", 2), ("step", 3)]
    assert [row["loss"] for row in read_metrics(path) if row["kind"] == "step"] == [1 / step for step in (1, 2, 3)]


def test_an_end_is_not_kept_when_a_run_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path / "metrics.jsonl", 4)
    MetricsLog(path, since=4).close()
    assert [row["kind"] for row in read_metrics(path)] == ["step", "step", "evaluation", "step", "step", "evaluation"]


def test_a_new_record_begins_anew(tmp_path: Path) -> None:
    path = written(tmp_path / "metrics.jsonl", 4)
    MetricsLog(path).close()
    assert path.read_bytes() == b""


def test_a_half_written_last_line_is_passed_over_and_gone_when_the_run_resumes(tmp_path: Path) -> None:
    path = written(tmp_path / "metrics.jsonl", 2)
    whole = path.read_bytes()
    last = json.dumps({"kind": "step", "step": 3, "loss": 0.25}).encode()
    for cut in range(1, len(last)):
        path.write_bytes(whole + last[:cut])
        assert [row["step"] for row in read_metrics(path)] == [1, 2, 2, 2]
    record = MetricsLog(path, since=2)
    record.write(kind="step", step=3, loss=0.5)
    record.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 2, 3]


def test_a_line_is_on_its_way_to_disk_when_write_returns(tmp_path: Path) -> None:
    record = MetricsLog(tmp_path / "metrics.jsonl")
    record.write(kind="step", step=1, loss=0.1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"kind": "step", "step": 1, "loss": 0.1}\n'
    record.close()


def test_there_is_no_record_before_the_first(tmp_path: Path) -> None:
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == []


def test_a_full_disk_is_said_and_the_lines_before_are_kept(tmp_path: Path) -> None:
    record = MetricsLog(tmp_path / "metrics.jsonl")
    record.write(kind="step", step=1, loss=0.1)

    def full(label: str, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    durable.hooks.append(full)
    with pytest.raises(OutOfSpace, match=r"metrics\.jsonl needs more than 41 bytes"):
        record.write(kind="step", step=2, loss=0.1)
    record.close()
    assert [row["step"] for row in read_metrics(record.path)] == [1]


def learning(step: int, rng: random.Random) -> float:
    """A good run's loss: from ln 67 = 4.2 nats down to 1.5, with the noise of small batches."""
    return 1.5 + 2.7 * math.exp(-step / 300) + rng.gauss(0, 0.15)


def warnings(losses: list[float]) -> list[tuple[int, str]]:
    """The steps at which the watchman speaks, and what he says."""
    watchman = LossMonitor()
    said = [(step, monitor.check_loss(step, loss)) for step, loss in enumerate(losses, start=1)]
    return [(step, sentence) for step, sentence in said if sentence]


@pytest.mark.parametrize("seed", range(5))
def test_a_good_run_is_not_warned_of(seed: int) -> None:
    rng = random.Random(seed)
    assert warnings([learning(step, rng) for step in range(3000)]) == []


def test_a_flat_noisy_run_is_not_warned_of() -> None:
    rng = random.Random(0)
    assert warnings([4.2 + rng.gauss(0, 0.3) for _ in range(3000)]) == []


def test_a_loss_that_runs_away_is_warned_of_once_and_in_time() -> None:
    rng = random.Random(0)
    losses = [learning(step, rng) + max(0.0, (step - 1000) / 100) for step in range(1500)]
    said = warnings(losses)
    assert len(said) == 1
    step, sentence = said[0]
    # Climbing by 0.01 nats a step from 1.6; smoothed over some twenty steps, 0.32 nats of climb are seen by step 1,100.
    assert 1000 < step < 1100
    assert sentence.startswith("diverging: the loss is ")
    assert "--training.learning_rate" in sentence


def test_the_first_steps_may_be_wild() -> None:
    assert warnings([4.0, 3.0, 9.0, *[9.0] * 40]) == []


def looks(curve: list[tuple[float, float]]) -> list[str]:
    """What is said at looks where (training, validation) loss stood so."""
    watchman, said = LossMonitor(), []
    for number, (training, validation) in enumerate(curve):
        watchman.smooth = training
        said.append(monitor.check_validation(100 * number, validation))
    return [sentence for sentence in said if sentence]


def test_validation_that_rises_while_training_falls_is_overfitting_said_once() -> None:
    (sentence,) = looks([(3.0, 3.0), (2.0, 2.2), (1.6, 2.0), (1.3, 2.1), (1.0, 2.2), (0.8, 2.4), (0.6, 2.6)])
    # The three looks after step 200 each rose.
    assert sentence.startswith("overfitting since step 200: validation rose from 2.000 to 2.400 nats")
    assert "the best model is kept" in sentence


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
    assert looks(curve) == []


def test_a_watchman_survives_a_checkpoint() -> None:
    rng = random.Random(0)
    losses = [learning(step, rng) + max(0.0, (step - 1000) / 100) for step in range(1500)]
    straight = LossMonitor()
    said = [straight.step(step, loss) for step, loss in enumerate(losses)]
    first = LossMonitor()
    before = [first.step(step, loss) for step, loss in enumerate(losses[:700])]
    second = LossMonitor()
    vars(second).update(json.loads(json.dumps(vars(first))))
    after = [second.step(step + 700, loss) for step, loss in enumerate(losses[700:])]
    assert before + after == said
