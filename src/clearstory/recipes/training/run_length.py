"""Course: how far a run is to go, decided before its first step: as asked, or as far as the time reaches."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

from clearstory.errors import BadSetting
from clearstory.models.prompts import reads_source
from clearstory.recipes.training import time_budget
from clearstory.recipes.training.events import TrainingEvent, RunPlanned, TrainingWarning
from clearstory.recipes.training.session import LAST_LOOK, Session

DEFAULT_STEPS = 2000
"""Where neither steps nor minutes are given."""

MOST_ROUNDS = 1000
"""Where minutes are given and the first rounds have yet to tell how long one takes."""

WHOLE_LOOK = 10_000
"""Tokens from which it is reckoned how long a model takes that reads documents whole."""


def plan(session: Session) -> Iterator[TrainingEvent]:
    """How far to go: as asked, or as far as the time reaches."""
    recipe, learner, clock = session.recipe, session.learner, session.clock
    s, per_step = recipe.training, None
    if recipe.time_limit is not None:
        # The time is that of the whole run, however often it is resumed.
        clock.seconds -= session.cpu_before if clock.processor else session.before
        yield from compile_stack(session, clock.left() / (s.threads if clock.processor else 1))
        per_step = probe(session)
        clock.reserve = closing_seconds(session)
        enough = clock.left() >= (per_step or 0.0)
        if not enough and learner.step == 0:
            first = f", which takes {per_step:.2g} s," if per_step else ""
            minutes, seconds = recipe.minutes, recipe.cpu_seconds
            given = f"{seconds:g} seconds of the processor" if minutes is None else f"{minutes:g} minutes"
            raise BadSetting(
                f"{given} are over before the first step{first} "
                f"beside {clock.reserve:.2g} s of measuring; give more, or a smaller model"
            )
        if not enough:
            learner.set_total_steps(learner.step)
        elif per_step:
            share = 1 - time_budget.LOOK_SHARE
            learner.set_total_steps(clock.steps(learner.step, per_step / share))
        else:
            learner.set_total_steps(MOST_ROUNDS)
    else:
        yield from compile_stack(session, None)
        if session.last is None or recipe.steps is not None:
            learner.set_total_steps(recipe.steps or DEFAULT_STEPS)
    if learner.step == 0:
        learner.plans = [(0, learner.steps)]
    session.eval_steps = s.eval_steps or learner.eval_steps or max(10, learner.steps // time_budget.LOOKS)
    session.save_steps = s.save_steps or session.eval_steps
    tokens = learner.steps * learner.tokens_per_step
    session.eval_tokens = s.eval_tokens or time_budget.eval_tokens(tokens, learner.steps // session.eval_steps)
    if s.patience and session.looks_without_better >= s.patience:
        learner.set_total_steps(learner.step)  # it had stopped early, and was killed before its end
    session.write_down()
    seconds = learner.steps * per_step if per_step else None
    yield RunPlanned(
        steps=learner.steps,
        seconds=seconds,
        sentence=f"{learner.plan}, {tokens / max(1, session.prepared.tokens):.1f} times over the text, "
        f"in {s.precision} on {session.device} with {s.threads} thread{'s' * (s.threads > 1)}",
    )
    if learner.step == 0:
        yield session.save()


def compile_stack(session: Session, seconds: float | None) -> Iterator[TrainingEvent]:
    """torch.compile the stack where that pays."""
    s = session.recipe.training
    # Batches of pairs differ in length, and each length would be compiled anew.
    asked = "off" if s.compile == "auto" and reads_source(session.model) else s.compile
    yes, sentence = time_budget.should_compile(asked, session.prepared.parameters, seconds, s.device)
    if sentence:
        yield TrainingWarning(step=session.learner.step, sentence=sentence)
    if yes:
        # Said at every compilation on a GPU; that fp32 means fp32 is meant.
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        session.model.compile()
        session.compiled = True


def probe(session: Session) -> float | None:
    """What a step takes of the time that is given; None where trying one out would cost too much."""
    if session.compiled:
        session.learner.probe()  # compiling happens at the first steps, and in other processes, whose time is not ours
    began, spent = time.perf_counter(), session.clock.spent()
    seconds = session.learner.probe()
    if seconds is None or not session.clock.processor:
        return seconds
    return seconds * (session.clock.spent() - spent) / (time.perf_counter() - began)


def closing_seconds(session: Session) -> float:
    """What the end of the run will take: the complete look, saving, the curve."""
    # A model that never forgets reads documents side by side, and the first one alone would be slow.
    whole = getattr(session.model, "context", 0) is None
    some = min(session.prepared.validation_tokens, WHOLE_LOOK if whole else 20 * session.learner.context)
    if session.compiled or session.recipe.training.device != "cpu":
        session.look_at(some, fast=False, spread=whole)  # as is what only reads; a GPU loads its kernels at first use
    began = session.clock.spent()
    session.look_at(some, fast=False, spread=whole)
    per_token = (session.clock.spent() - began) / max(1, some)
    tokens = session.prepared.validation_tokens
    tokens = tokens if session.closing else min(tokens, LAST_LOOK)
    return per_token * tokens + 1.0 + 1e-8 * session.prepared.parameters
