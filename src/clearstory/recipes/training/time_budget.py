"""Budget: how many steps fit into the time there is, measured on this machine rather than guessed."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field

LOOKS = 20
"""Looks at the validation split in a run, where nothing else is said."""

LOOK_SHARE = 0.05
"""Most of the time that looks, saves and samples together may take."""

BYTES_PER_PARAMETER = 8
"""Measured with 60 and 180 seconds of one core, on presidents' addresses by characters (best: 0.3 and 0.6 million
parameters in the blocks) and on the King James Bible by 4,096 subwords (0.6 million after 60 seconds). Far from the 20
tokens of Hoffmann et al. 2022, although it counts bytes: minutes of a laptop end long before their curves begin.
"""

MOST_PARAMETERS_PER_TOKEN = 4
"""Beyond, a model learns its text by heart before it has read it twice."""


ROUNDS = 20
"""In which a model that reads all of the text in each round is to learn: Baum-Welch brings little after."""


@dataclass
class TimeBudget:
    """A stretch of time to be used up: `seconds` from `began`, of which `reserve` at the end are not for training.

    `processor`: the seconds are those of the processor, all threads added, and not the clock's on the wall.
    """

    seconds: float
    began: float = field(default_factory=time.monotonic)
    cpu_began: float = field(default_factory=time.process_time)
    reserve: float = 0.0
    processor: bool = False

    def spent(self) -> float:
        """Seconds that are used up."""
        return time.process_time() - self.cpu_began if self.processor else time.monotonic() - self.began

    def left(self) -> float:
        """Seconds still left for training."""
        return self.seconds - self.reserve - self.spent()

    def steps(self, done: int, seconds_per_step: float) -> int:
        """Steps of the whole run, if `done` are done and the rest take so long each."""
        return done + max(1, int(self.left() / seconds_per_step))


def parameters_for(seconds: float, flops_per_second: float, tokens: int, text_bytes: int) -> int:
    """How many parameters in its blocks a model can be taught in this much time, on this text. Its embeddings come on
    top: they are looked up, not multiplied with.

    Training takes about 6 operations for each parameter and token (Kaplan et al. 2020, section 2.1), and each parameter
    wants BYTES_PER_PARAMETER of text, however many tokens spell them.
    """
    by_time = (max(0.0, seconds) * flops_per_second / 6 * (text_bytes / tokens) / BYTES_PER_PARAMETER) ** 0.5
    return int(max(min(by_time, MOST_PARAMETERS_PER_TOKEN * tokens), 50_000))


def parameters_by_rounds(seconds: float, flops_per_second: float, tokens: int) -> int:
    """The same for a model that counts, and reads all of the text in each of its rounds. Words are looked up; states
    are multiplied with states, forwards, backwards and for the counts of pairs.
    """
    return max(16, int(seconds * flops_per_second / (6 * tokens * ROUNDS)))


def dropout_for(seconds: float, flops_per_second: float, parameters: int, tokens: int) -> float:
    """How much to drop in a run that will read its text so many times: none in a few passes, a fifth in dozens."""
    passes = seconds * flops_per_second / 6 / parameters / tokens
    return 0.0 if passes < 4 else 0.1 if passes < 12 else 0.2


def context_for(seconds: float, device: str) -> int:
    """How far to look back where nothing else is said. A processor pays for every token of it, a GPU hardly."""
    return 128 if seconds < 600 and device == "cpu" else 256


def eval_tokens(tokens: int, looks: int) -> int:
    """Validation tokens for each look, so that all of them take a tenth of the time of learning `tokens`.

    Reading takes a third of what learning takes: a forward pass without its backward pass.
    """
    return int(min(max(0.1 * 3 * tokens / max(1, looks), 4096), 500_000))


def compiler() -> str | None:
    """A C++ compiler that torch.compile could use; None where there is none."""
    return next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)


def should_compile(asked: str, parameters: int, seconds: float | None, device: str = "cpu") -> tuple[bool, str | None]:
    """Whether to compile, and a sentence where that is not what was asked for or costs something.

    Measured on a processor: compiling takes 13 to 77 s, gains 17 % at 0.8 M parameters and nothing at 14 M, so it pays
    for small models in runs of ten minutes and more. On a GPU it pays for all sizes, since steps wait for memory.
    """
    if asked == "off":
        return False, None
    gpu = device.startswith("cuda")
    worth = seconds is not None and seconds > 600 and (gpu or parameters < 5_000_000)
    if compiler() is None:
        if asked == "on" or worth:
            slower = "training is slower" if gpu else "a small model trains up to 17 % slower"
            return False, (
                f"there is no C++ compiler, so steps run uncompiled and {slower}; install g++ or clang to change that"
            )
        return False, None
    return asked == "on" or worth, None
