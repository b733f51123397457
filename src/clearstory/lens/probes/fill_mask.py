"""Fill: what an encoder puts at a place that is hidden from it. Devlin et al. 2019, section 3.1, task 1.

... [MASK] ... ─► encoder, both ways ─► vector there · one vector for each word ─► logits ─► softmax ─► probabilities
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.probes.next_token import entropy
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.views import Table, Report
from clearstory.models.base import inference_mode
from clearstory.models.prompts import Truncation
from clearstory.text.special_tokens import require_mask_token
from clearstory.text.tokenizers import Tokenizer


def fill_mask(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    mask: tuple[int, ...] = (),
    top: int = 20,
    truncate: Truncation | None = None,
) -> Report:
    """What may stand at each hidden token, by what stands before and behind it: the likeliest, and what does.

    Hidden is every [MASK] of the text and each place of `mask`, counted from the [CLS] that the model reads first; the
    last token of the text where neither is given. Each is told on its own: of two, neither knows what is said of the
    other.

    Raises BadSetting for a place that is not there or frames the text, BadInput for a text of no tokens.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    read, hides = encode_passage(model, tokenizer, text, truncate=truncate), require_mask_token(tokenizer)
    places = hidden(read, tokenizer, mask)
    ids = tuple(hides if place in places else id for place, id in enumerate(read.ids))
    shown = replace(read, ids=ids)
    with inference_mode(model):
        found = model.logits(shown.hidden(model)[places]).double().log_softmax(-1).cpu()
    words = " ".join(tokenizer.display_token(hides) if place in places else each for place, each in enumerate(read.pieces))
    steps = tuple(
        told(tokenizer, place, read.ids[place], row, top, hides) for place, row in zip(places, found, strict=True)
    )
    return Report(title=f"What may stand in: {words}", panels=steps, caption=said(places, read, found, hides))


def hidden(read: Passage, tokenizer: Tokenizer, mask: tuple[int, ...]) -> list[int]:
    """The places that are hidden, in order."""
    frame = {tokenizer.cls_token_id, tokenizer.sep_token_id}
    free = [place for place, id in enumerate(read.ids) if id not in frame]
    if not free:
        raise BadInput("the text has no token that could be hidden; give a few words")
    for place in mask:
        if place not in free:
            last = len(read.ids) - 1
            what = f"is ‘{read.pieces[place]}’, which frames the text" if 0 <= place <= last else "is not there"
            raise BadSetting(f"place {place} {what}; the text stands from place {free[0]} to {free[-1]}")
    own = {place for place in free if read.ids[place] == tokenizer.mask_token_id}
    return sorted({*mask, *own} or {free[-1]})


def told(tokenizer: Tokenizer, place: int, id: int, logs: Float[Tensor, "V"], top: int, hides: int) -> Table:
    """One place: its likeliest tokens, and the one that was hidden with its rank."""
    logs = logs[: tokenizer.vocab]
    best = logs.argsort(descending=True, stable=True)[:top].tolist()
    bits = entropy(logs.exp())
    look = f"Entropy {bits:.2f} bits: as unsure as among {2**bits:,.1f} equally likely tokens."
    if id != hides:
        rank = int((logs > logs[id]).sum()) + 1
        look += (
            f" ‘{tokenizer.display_token(id)}’ stands there: rank {rank:,}, {float(logs[id].exp()):.2%}, "
            f"{-float(logs[id]) / math.log(2):.2f} bits."
        )
        best += [] if id in best else [id]
    return Table(
        title=f"Place {place}" + ("" if id == hides else f", where ‘{tokenizer.display_token(id)}’ stands"),
        columns=("token", "id", "probability"),
        rows=tuple((tokenizer.display_token(each), each, float(logs[each].exp())) for each in best),
        bar="probability",
        caption=look,
    )


def said(places: list[int], read: Passage, logs: Float[Tensor, "N V"], hides: int) -> str | None:
    """How many of the hidden tokens are told rightly, where they are known."""
    known = [(row, read.ids[place]) for row, place in enumerate(places) if read.ids[place] != hides]
    if not known:
        return None
    right = sum(int(logs[row].argmax()) == id for row, id in known)
    bits = -sum(float(logs[row, id]) for row, id in known) / math.log(2)
    return f"{right} of {len(known)} hidden tokens told rightly, in {bits:.2f} bits."
