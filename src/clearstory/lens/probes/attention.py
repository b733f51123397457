"""Attention: who looks at whom, in one head. Vaswani et al. 2017, eq. 1: the softmax of Q Kᵀ / √d under the mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.attention_sites import AttentionPart, AttentionSite, attention_site, attention_sites
from clearstory.lens.hooks.trace import record_activations
from clearstory.lens.views import Grid
from clearstory.models.prompts import Truncate, resting


def attention(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    layer: int = -1,
    head: int | None = None,
    part: AttentionPart | None = None,
    target: str | None = None,
    truncate: Truncate | None = None,
) -> Grid:
    """The attention of one head over a text; of the most decided head of the layer when none is named.

    Rows are who looks, columns who is looked at. An encoder-decoder shows its encoder; `part` names its decoder, which
    has written `target`, or `cross`, how that looks across at the text.
    """
    read = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    at = attention_site(model, layer, part)
    weights = attention_weights(model, read, at)
    head = at.head(head, weights)
    rows, columns = at.reads(read)
    return Grid(
        title=f"Attention of {at.words}, head {head}: each row takes from the columns",
        row_labels=rows,
        column_labels=columns,
        values=tuple(map(tuple, weights[head].tolist())),
        unit="weight",
        caption=attention_caption(at, weights[head], columns),
    )


def attention_weights(model: Any, read: Passage, at: AttentionSite) -> Float[Tensor, "H T S"]:
    """How much each token (row) takes from each it may see (column), for all heads of a layer; rows sum to 1."""
    [weights] = attention_patterns(model, read, [at])
    return weights


def attention_patterns(model: Any, read: Passage, of: list[AttentionSite], keep: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
    """The weights (H, T, S) of several attentions, in the order given, from one reading; or what is to be kept of
    them: `keep` is handed each layer's (1, H, T, S) and the next layer's are made when it is done.
    """
    names = [f"{each.tap}.pattern" for each in of]
    with resting(model), record_activations(model, *names, keep=keep) as seen:
        read.hidden(model)
    return [seen[name][0] for name in names]


def pooled_patterns(model: Any, read: Passage, part: AttentionPart | None = None, cells: int = 40) -> Tensor:
    """Every head's pattern in a few cells, for a mosaic: (layers, heads, rows, columns) uint8, `cells` a side at most.

    A cell is the largest weight under it, 255 for 1: a single bright point stays one. Of 512 tokens, 30 layers of 9
    heads are 0.4 MB in place of 283, and no two layers' weights are held at once.
    """

    def small(pattern: Tensor) -> Tensor:
        size = (min(cells, pattern.shape[-2]), min(cells, pattern.shape[-1]))
        return (F.adaptive_max_pool2d(pattern.float(), size) * 255).round().to(torch.uint8)

    return torch.stack(attention_patterns(model, read, attention_sites(model, part), small))


def attention_caption(at: AttentionSite, weights: Float[Tensor, "T S"], columns: Sequence[str]) -> str | None:
    """What stands out: how decided the tokens are, how far they look, and where all weight goes to one column."""
    choice = at.visible(weights) > 1
    if not bool(choice.any()):
        return None
    own = weights[choice].double()
    said = f"A token takes {float(own.amax(-1).mean()):.0%} from its favourite"
    if at.part != "cross":
        count = weights.shape[0]
        places = torch.arange(count, device=weights.device)
        away = (weights.double() * (places[:, None] - places).abs())[choice].sum(-1).mean()
        said += f" and looks {float(away):.1f} tokens {'back' if at.attention.causal else 'away'} on average"
    taken = own.mean(0)
    if float(taken.max()) > 0.5 and len(own) > 2:
        said += f"; ‘{columns[int(taken.argmax())]}’ gets {float(taken.max()):.0%} of all weight"
    return f"{said}."
