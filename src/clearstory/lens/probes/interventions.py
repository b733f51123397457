"""Edited: what a model says with edits inside, beside what it said without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearstory.errors import BadSetting
from clearstory.lens.hooks.interventions import Intervention, parse_intervention
from clearstory.lens.hooks.apply_interventions import InterventionOutcome, run_interventions
from clearstory.lens.probes.next_token import text_ending
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.views import Table
from clearstory.models.prompts import Truncation, reads_source
from clearstory.text.tokenizers import Tokenizer

MOVED = 0.01
"""Bits of divergence from which on a change is worth a word."""


def interventions(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    edit: tuple[str, ...] = (),
    target: str | None = None,
    top: int = 12,
    truncate: Truncation | None = None,
) -> Table:
    """The words whose probability the edits change most: before, after, and by how much. An edit is written like
    “head 5.3 off”, “cell 5.3 7 2 0.9” or “layer 5 x0.5”.

    All kinds are in edits.py. Raises BadSetting without any.
    """
    if not edit:
        raise BadSetting('there is no edit; give one as "edit", such as "head 0.0 off"')
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    edits = [parse_intervention(each) for each in edit]
    read = encode_passage(model, tokenizer, text, target=target if reads_source(model) else None, truncate=truncate)
    outcome = run_interventions(model, tokenizer, read, edits)
    moves = outcome.largest_changes(top)
    # Likeliest first: a list of words is read from the top.
    rows = sorted(
        ((tokenizer.display_token(id), before, after, after - before) for id, before, after in moves),
        key=lambda row: -max(row[1], row[2]),
    )
    return Table(
        title=f"After “{text_ending(text, 30)}”, with {', '.join(map(str, edits))}",
        columns=("token", "before", "change", "after"),
        rows=tuple((token, before, change, after) for token, before, after, change in rows),
        bar="after",
        caption=look(outcome, edits, tokenizer),
    )


def look(outcome: InterventionOutcome, edits: Sequence[Intervention], tokenizer: Tokenizer) -> str:
    """How far the answer moved, and whether another word leads now."""
    first, now = int(outcome.before.argmax()), int(outcome.after.argmax())
    what = "the edit" if len(edits) == 1 else f"{len(edits)} edits"
    said = f"KL {outcome.kl:.3g} bits: "
    if outcome.kl < MOVED:
        return said + f"{what} changed next to nothing; ‘{tokenizer.display_token(first)}’ still leads."
    before, after = float(outcome.before[first]), float(outcome.after[first])
    said += f"with {what} ‘{tokenizer.display_token(first)}’ goes from {before:.1%} to {after:.1%}"
    if now == first:
        return said + " and still leads."
    return said + f", and ‘{tokenizer.display_token(now)}’ leads with {float(outcome.after[now]):.1%}."
