"""Interventions: a model's prediction with interventions, compared with the prediction without them."""

from __future__ import annotations

from collections.abc import Sequence

from clearstory.errors import BadSetting
from clearstory.lens.hooks.apply_interventions import InterventionOutcome, run_interventions
from clearstory.lens.hooks.interventions import Intervention, parse_intervention
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.probes.formatting import text_ending
from clearstory.lens.views import Table
from clearstory.models.base import LanguageModel
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import Truncation
from clearstory.text.tokenizers import Tokenizer

MIN_KL = 0.01
"""Bits of divergence from which on a change is described in the caption."""


def interventions(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    edit: tuple[str, ...] = (),
    target: str | None = None,
    top: int = 12,
    truncate: Truncation | None = None,
) -> Table:
    """The tokens whose probability changes most with interventions such as “head 5.3 off” or “layer 5 x0.5”.

    The syntax is described in `clearstory.lens.hooks.interventions`. Raises BadSetting without an intervention.
    """
    if not edit:
        raise BadSetting('there is no intervention; give one as "edit", such as "head 0.0 off"')
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    applied = [parse_intervention(each) for each in edit]
    target = target if Capability.SOURCE in model.capabilities else None
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    outcome = run_interventions(model, tokenizer, passage, applied)
    # Most likely first.
    rows = sorted(
        (
            (tokenizer.display_token(id), before, after, after - before)
            for id, before, after in outcome.largest_changes(top)
        ),
        key=lambda row: -max(row[1], row[2]),
    )
    return Table(
        title=f"Next token after “{text_ending(text, 30)}” with {', '.join(map(str, applied))}",
        columns=("token", "before", "change", "after"),
        rows=tuple((token, before, change, after) for token, before, after, change in rows),
        bar="after",
        caption=outcome_caption(outcome, applied, tokenizer),
    )


def outcome_caption(outcome: InterventionOutcome, applied: Sequence[Intervention], tokenizer: Tokenizer) -> str:
    """The divergence, the change of the most likely token, and the new most likely token."""
    first, now = int(outcome.before.argmax()), int(outcome.after.argmax())
    what = "the intervention" if len(applied) == 1 else f"{len(applied)} interventions"
    text = f"KL {outcome.kl:.3g} bits: "
    if outcome.kl < MIN_KL:
        return text + f"almost no effect; ‘{tokenizer.display_token(first)}’ is still most likely."
    before, after = float(outcome.before[first]), float(outcome.after[first])
    text += f"with {what} ‘{tokenizer.display_token(first)}’ goes from {before:.1%} to {after:.1%}"
    if now == first:
        return text + " and is still most likely."
    return text + f", and ‘{tokenizer.display_token(now)}’ is most likely with {float(outcome.after[now]):.1%}."
