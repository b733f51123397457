"""Table: every view by its name on the command line, and what a model must have to show it.

Imports nothing until a view is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from clearstory.errors import CannotDo, UnknownName, nearest
from clearstory.lens.views import View
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.base import reads_source


@dataclass(frozen=True)
class Entry:
    """Where a view is made: a function (model, tokenizer, text, **settings) -> View.

    `part` is the attribute of a model that the view looks into, or several of which any will do, and `needs` says in
    words what that is; None for views that ask only what every language model can do. A model that has no such part, or
    None there, cannot show it.
    `forwards`: it asks what comes next, which an encoder, that sees what comes, cannot be asked. `sourced`: a
    model that reads a source and writes from it can show it too. `writes`: it is handed what writes after the text.
    `slow`: it reads the text anew for each part of the model, so a page asks before it is made. `listed`: it is the
    head of a list of the whole vocabulary, of which `top` may ask for more; a difference needs all of it.
    """

    function: str
    part: str | tuple[str, ...] | None = None
    needs: str = "any language model"
    forwards: bool = False
    sourced: bool = True
    writes: bool = False
    slow: bool = False
    listed: bool = False

    def fits(self, model: Any) -> bool:
        """Whether a model has what the view looks into."""
        parts = (self.part,) if isinstance(self.part, str) else self.part
        return parts is None or any(getattr(model, part, None) is not None for part in parts)


FORWARDS = "a model that reads left to right"
STACKS = ("blocks", "decoder")
ATTENTION = "attention, which a Transformer has"
STREAM = "a Transformer's stream"
WRITES = "the stream of a Transformer that writes: its logits are sums of what was added there"
WORDS = "a vector for each word"

VIEWS: dict[str, Entry] = {
    "tokens": Entry("clearstory.lens.probes.tokenization:tokenization"),
    "embeddings": Entry("clearstory.lens.probes.embeddings:embeddings", "embedding", WORDS),
    "neighbours": Entry("clearstory.lens.probes.x_neighbours:neighbours", "output_weight", WORDS),
    "analogy": Entry("clearstory.lens.probes.x_neighbours:analogy", "output_weight", WORDS),
    "projection": Entry("clearstory.lens.probes.projection:projection", "output_weight", WORDS),
    "semantic-axis": Entry("clearstory.lens.probes.projection:semantic_axis", "output_weight", WORDS),
    "contextual-embeddings": Entry(
        "clearstory.lens.probes.contextual_embeddings:contextual_embeddings", "embedding", "vectors for words that change from layer to layer"
    ),
    "positions": Entry("clearstory.lens.probes.positions:positions", STACKS, "places, which a Transformer is told"),
    "architecture": Entry("clearstory.lens.probes.architecture:architecture"),
    "next-token": Entry("clearstory.lens.probes.next_token:next_token", needs=FORWARDS, forwards=True, listed=True),
    "surprisal": Entry("clearstory.lens.probes.surprisal:surprisal", needs=FORWARDS, forwards=True),
    "generation": Entry("clearstory.lens.probes.generation:generation", needs=FORWARDS, forwards=True, writes=True),
    "fill-mask": Entry(
        "clearstory.lens.probes.fill_mask:fill_mask", "mlm_transform", "a head that tells what stands at a [MASK], which an encoder has"
    ),
    "attention": Entry("clearstory.lens.probes.attention:attention", STACKS, ATTENTION),
    "combined-heads": Entry("clearstory.lens.probes.x_combined:combined_heads", STACKS, ATTENTION),
    "head": Entry("clearstory.lens.probes.attention_head:attention_head", STACKS, ATTENTION),
    "heads": Entry("clearstory.lens.probes.head_types:head_types", STACKS, ATTENTION),
    "dependency-heads": Entry("clearstory.lens.probes.dependency_heads:dependency_heads", STACKS, ATTENTION, slow=True),
    "qk-ov": Entry("clearstory.lens.probes.qk_circuit:qk_circuit", STACKS, ATTENTION),
    "logit-lens": Entry("clearstory.lens.probes.logit_lens:logit_lens", STACKS, STREAM),
    "logit-attribution": Entry("clearstory.lens.probes.logit_attribution:logit_attribution", STACKS, WRITES, forwards=True),
    "residual-norms": Entry("clearstory.lens.probes.residual_norms:residual_norms", STACKS, STREAM),
    "neurons": Entry("clearstory.lens.probes.neurons:neurons", STACKS, WRITES, forwards=True),
    "interventions": Entry("clearstory.lens.probes.interventions:interventions", STACKS, STREAM),
    "ablation": Entry("clearstory.lens.probes.ablation:ablation", STACKS, STREAM, slow=True),
    "activation-patching": Entry("clearstory.lens.probes.activation_patching:activation_patching", STACKS, STREAM, slow=True),
    "gates": Entry("clearstory.lens.probes.x_gates:gate_activations", "layers", "gates, which a recurrent model has"),
    "activations": Entry("clearstory.lens.probes.recurrent_units:activations", "layers", "units, which a recurrent model has"),
    "gradient-reach": Entry(
        "clearstory.lens.probes.gradient_reach:gradient_reach", "embedding", "vectors that a gradient reaches, read left to right", True, False
    ),
    "viterbi": Entry("clearstory.lens.probes.x_states:viterbi", "chain", "hidden states, which an hmm has"),
    "posteriors": Entry("clearstory.lens.probes.hmm_states:posteriors", "chain", "hidden states, which an hmm has"),
    "backoff": Entry("clearstory.lens.probes.x_backoff:backoff", "tables", "tables of n-grams"),
    "ngram-counts": Entry("clearstory.lens.probes.ngram_counts:ngram_counts", "tables", "tables of n-grams"),
}
"""From a view's name to where it is made and what it needs."""


def view_of(name: str) -> Callable[..., View]:
    """The function behind a view's name. Raises UnknownName with the nearest."""
    if name not in VIEWS:
        raise UnknownName(f"there is no view called '{name}'; {nearest(name, VIEWS)}")
    module, function = VIEWS[name].function.split(":")
    made: Any = getattr(import_module(module), function)
    return made  # type: ignore[no-any-return]  # a name from the table above


def able(model: Any) -> list[str]:
    """The names of the views that a model can show."""
    encoder, sourced = isinstance(model, Encoder), reads_source(model)
    return [
        name
        for name, entry in VIEWS.items()
        if entry.fits(model) and not (encoder and entry.forwards) and not (sourced and not entry.sourced)
    ]


def check_able(name: str, model: Any) -> None:
    """Raises CannotDo, naming the views that it can show, for a model that cannot show this one."""
    if name in (can := able(model)):
        return
    family = getattr(getattr(model, "config", None), "family", type(model).__name__)
    lacks = f"and this model ({family}) has none"
    if isinstance(model, Encoder):
        lacks = "and this model is an encoder, which sees both sides (clearstory fill-mask tells what may stand at a [MASK])"
    if reads_source(model) and not VIEWS[name].sourced:
        lacks = "and this model reads a source and writes another text"
    raise CannotDo(
        f"the view '{name}' needs {VIEWS[name].needs}, {lacks}; it can show {', '.join(can[:-1])} and {can[-1]}"
    )
