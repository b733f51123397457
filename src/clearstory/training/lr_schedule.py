"""Learning rate schedule: warm-up, then cosine, linear, constant, wsd or noam."""

from __future__ import annotations

import math

from clearstory.training.settings import TrainingSettings


def lr_factor(step: int, steps: int, settings: TrainingSettings) -> float:
    """The learning rate at `step` (from 0) of a run of `steps`, as a factor of its peak.

    Warm-up rises linearly; then cosine (Loshchilov and Hutter 2017, eq. 5), linear, constant, or wsd: constant until
    the last `decay_share` of the run, then linear (Hu et al. 2024); or noam: √(warmup / step), which with a peak of
    1/√(width · warmup) is Vaswani et al. 2017, eq. 3.

    >>> linear = TrainingSettings(schedule="linear", warmup_steps=2, final_learning_rate=0)
    >>> [round(lr_factor(step, 10, linear), 3) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.125]
    """
    # At most half of a short run: a warm-up longer than the run would never reach the peak.
    warmup = min(settings.warmup_steps, steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "noam":
        return math.sqrt(max(1, warmup) / (step + 1))
    progress = (step - warmup) / max(1, steps - warmup)
    final = settings.final_learning_rate
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "cosine":
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
    if settings.schedule == "linear":
        return 1 - (1 - final) * progress
    decay_start = 1 - settings.decay_share
    decayed = max(0.0, (progress - decay_start) / settings.decay_share) if settings.decay_share else 0.0
    return 1 - (1 - final) * decayed
