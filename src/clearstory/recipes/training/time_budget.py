"""Time budget of a run: how many steps, parameters and validation tokens fit into the available time.

Everything is derived from measured speeds of this machine.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field

EVALUATIONS_PER_RUN = 20
"""Evaluations in a run where eval_steps is not set."""

OVERHEAD_FRACTION = 0.05
"""Fraction of the time reserved for evaluating, saving and sampling."""

BYTES_PER_PARAMETER = 8
"""Bytes of training text per parameter. Measured with 60 and 180 seconds of one core, on presidents' addresses by
characters (best: 0.3 and 0.6 million parameters in the blocks) and on the King James Bible by 4,096 subwords (0.6
million after 60 seconds). Fewer than the 20 tokens of Hoffmann et al. 2022, whose compute budgets are orders of
magnitude larger.
"""

MAX_PARAMETERS_PER_TOKEN = 4
"""Larger models memorise their text within two epochs."""

EM_ROUNDS = 20
"""Rounds planned for a model fitted by EM, each over all of the text: Baum-Welch improves little after them."""


@dataclass
class TimeBudget:
    """A time limit in seconds, counted from its creation, of which `reserve` seconds at the end are not for training.

    Args:
        seconds: the limit.
        started: time.monotonic() at the start.
        cpu_started: time.process_time() at the start.
        reserve: seconds kept for the final evaluation.
        counts_cpu_time: whether the limit is CPU time summed over all threads, instead of wall-clock time.
    """

    seconds: float
    started: float = field(default_factory=time.monotonic)
    cpu_started: float = field(default_factory=time.process_time)
    reserve: float = 0.0
    counts_cpu_time: bool = False

    def elapsed(self) -> float:
        """Seconds used so far."""
        return time.process_time() - self.cpu_started if self.counts_cpu_time else time.monotonic() - self.started

    def remaining(self) -> float:
        """Seconds left for training."""
        return self.seconds - self.reserve - self.elapsed()

    def total_steps(self, steps_done: int, seconds_per_step: float) -> int:
        """Steps of the whole run: those done, and as many more as fit into the remaining time, at least one."""
        return steps_done + max(1, int(self.remaining() / seconds_per_step))


def parameters_for_budget(seconds: float, flops_per_second: float, tokens: int, text_bytes: int) -> int:
    """Number of parameters in the blocks of a model that can be trained on this text in this time, without embeddings.

    Training takes about 6 floating-point operations per parameter and token (Kaplan et al. 2020, section 2.1), and each
    parameter needs BYTES_PER_PARAMETER of text.
    """
    by_time = (max(0.0, seconds) * flops_per_second / 6 * (text_bytes / tokens) / BYTES_PER_PARAMETER) ** 0.5
    return int(max(min(by_time, MAX_PARAMETERS_PER_TOKEN * tokens), 50_000))


def em_parameters_for_budget(seconds: float, flops_per_second: float, tokens: int) -> int:
    """Number of transition parameters of an HMM that EM_ROUNDS rounds of EM over all tokens can fit in this time.

    Emissions are looked up; the transition matrix is multiplied with in the forward pass, in the backward pass and for
    the expected counts.
    """
    return max(16, int(seconds * flops_per_second / (6 * tokens * EM_ROUNDS)))


def dropout_for_budget(seconds: float, flops_per_second: float, parameters: int, tokens: int) -> float:
    """Dropout by the number of epochs that fit into the time: 0 under 4, 0.1 under 12, else 0.2."""
    epochs = seconds * flops_per_second / 6 / parameters / tokens
    return 0.0 if epochs < 4 else 0.1 if epochs < 12 else 0.2


def dropout_of_translator(seconds: float, flops_per_second: float, parameters: int, tokens: int) -> float:
    """Dropout of an encoder-decoder: as above, but 0.3 from 24 epochs; `tokens` are those of sources and targets.

    A token passes one of both stacks, half of the parameters. 29,000 pairs of Multi30k in 50 epochs: 1.60 nats per
    target token with 0.3; with 0.15, in a model of twice the size, the loss ended at 2.03 after 18.
    """
    dropout = dropout_for_budget(seconds, flops_per_second, parameters // 2, tokens)
    return 0.3 if dropout_for_budget(seconds / 2, flops_per_second, parameters // 2, tokens) == 0.2 else dropout


def context_for_budget(seconds: float, device: str) -> int:
    """Context length where none is set: 128 for short runs on a CPU, where its cost is high, else 256."""
    return 128 if seconds < 600 and device == "cpu" else 256


def evaluation_tokens(training_tokens: int, evaluations: int) -> int:
    """Validation tokens of each evaluation, so that all evaluations together take a tenth of the training time.

    Evaluating a token takes a third of training on it: a forward pass without its backward pass.
    """
    return int(min(max(0.1 * 3 * training_tokens / max(1, evaluations), 4096), 500_000))


def evaluations_for_tokens(training_tokens: int, validation_tokens: int) -> int:
    """Number of evaluations on all validation tokens that together take a tenth of the training time; from 2 to 20."""
    return int(min(max(0.1 * 3 * training_tokens / max(1, validation_tokens), 2), EVALUATIONS_PER_RUN))


def find_cpp_compiler() -> str | None:
    """Path of a C++ compiler for torch.compile; None if there is none."""
    return next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)


def should_compile(
    setting: str, parameters: int, seconds: float | None, device: str = "cpu"
) -> tuple[bool, str | None]:
    """Whether to use torch.compile, and a warning where `setting` (auto, on, off) cannot be followed.

    Measured on a CPU: compiling takes 13 to 77 s, gains 17 % at 0.8 M parameters and nothing at 14 M, so it pays for
    small models in runs of ten minutes and more. On a GPU it pays for all sizes, since steps are bound by memory.
    """
    if setting == "off":
        return False, None
    gpu = device.startswith("cuda")
    worthwhile = seconds is not None and seconds > 600 and (gpu or parameters < 5_000_000)
    if find_cpp_compiler() is None:
        if setting == "on" or worthwhile:
            slower = "training is slower" if gpu else "a small model trains up to 17 % slower"
            return False, (
                f"there is no C++ compiler, so steps run uncompiled and {slower}; install g++ or clang to use "
                "torch.compile"
            )
        return False, None
    return setting == "on" or worthwhile, None
