"""Every view by name: the function that computes it, and the required capabilities of a model.

The module of a view is imported when the view is computed, so the table itself imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from clearstory.errors import CannotDo, UnknownName, nearest
from clearstory.lens.views.base import View
from clearstory.models.capabilities import Capability, family_name, has_capability, require

if TYPE_CHECKING:
    from clearstory.models.base import LanguageModel

ATTENTION = (Capability.ATTENTION,)
ATTENTION_RESIDUAL = (Capability.ATTENTION, Capability.HIDDEN_STATES)
CAUSAL = (Capability.CAUSAL,)
CAUSAL_RESIDUAL = (Capability.HIDDEN_STATES, Capability.CAUSAL)
EMBEDDINGS = (Capability.EMBEDDINGS,)
HMM_STATES = (Capability.HMM_STATES,)
NGRAM_COUNTS = (Capability.NGRAM_COUNTS,)
RECURRENT = (Capability.RECURRENT_STATE,)
RESIDUAL = (Capability.HIDDEN_STATES,)

NEEDS: dict[Capability, str] = {
    Capability.ATTENTION: "attention",
    Capability.CLASSIFIER: "a classification head",
    Capability.CAUSAL: "next-token prediction",
    Capability.EMBEDDINGS: "token embeddings",
    Capability.EXPERTS: "a mixture of models",
    Capability.GATES: "gates",
    Capability.GRADIENTS: "gradients",
    Capability.HIDDEN_STATES: "a residual stream of layers",
    Capability.HMM_STATES: "discrete hidden states",
    Capability.MLM_HEAD: "a masked-token head",
    Capability.NGRAM_COUNTS: "n-gram tables",
    Capability.RECURRENT_STATE: "a recurrent state",
    Capability.SOURCE: "a source",
}
"""Descriptions of the capabilities that views require."""


STACK, ENCODER_DECODER = (
    "clearstory.models.transformer.stack:Stack",
    "clearstory.models.transformer.encoder_decoder:EncoderDecoder",
)
RECURRENT_MODEL = "clearstory.models.recurrent.model:Recurrent"
RECURRENT_SEQ2SEQ = "clearstory.models.recurrent.encoder_decoder:RecurrentEncoderDecoder"

STRUCTURES: dict[Capability, tuple[str, ...]] = {
    Capability.ATTENTION: (STACK, ENCODER_DECODER, RECURRENT_SEQ2SEQ),
    Capability.CLASSIFIER: ("clearstory.models.heads:ClassificationHead",),
    Capability.HIDDEN_STATES: (STACK, ENCODER_DECODER),
    Capability.GATES: (RECURRENT_MODEL,),
    Capability.RECURRENT_STATE: (RECURRENT_MODEL,),
    Capability.HMM_STATES: ("clearstory.models.hmm.model:HMM",),
    Capability.MLM_HEAD: ("clearstory.models.transformer.encoder:Encoder",),
    Capability.NGRAM_COUNTS: ("clearstory.models.ngram.model:NGram",),
    Capability.EXPERTS: ("clearstory.models.mixture.model:Mixture",),
}
"""The classes whose inner parts views read, by capability. A new family that declares such a capability and is built of
other parts is refused in a sentence until `lens.hooks` knows it; all other capabilities need methods only."""


def known_structure(model: LanguageModel, capability: Capability) -> bool:
    """Whether the parts behind a capability are of a class that hooks know; True where they need not."""
    from clearstory.lens.hooks.activations import unwrap_model

    references = [reference.split(":") for reference in STRUCTURES.get(capability, ())]
    classes = tuple(getattr(import_module(module), name) for module, name in references)
    return not classes or isinstance(unwrap_model(model), classes) or isinstance(model, classes)


@dataclass(frozen=True)
class ViewSpec:
    """A view's function (model, tokenizer, text, **settings) -> View, and its requirements.

    Args:
        function: "module:function".
        requires: capabilities that the model must have.
        any_of: capabilities of which it must have one.
        excludes: capabilities that the model must not have.
        needs_generator: whether the function also takes the writer that continues the text.
        slow: whether it runs the model once for each component, so that a page asks before it computes it.
        lists_vocabulary: whether it shows the `top` tokens of the whole vocabulary; a difference needs all of them.
        choice: "module:function" that returns the settings which the view chooses if they are not given, such
            as the head; with the arguments of the view. In a comparison the choice of the first side is used for both.
        comparison: "module:function" that compares two models, given the second and its tokenizer after the text; None
            subtracts the two views.
    """

    function: str
    requires: tuple[Capability, ...] = ()
    any_of: tuple[Capability, ...] = ()
    excludes: tuple[Capability, ...] = ()
    needs_generator: bool = False
    slow: bool = False
    lists_vocabulary: bool = False
    choice: str | None = None
    comparison: str | None = None

    @property
    def needs(self) -> str:
        """Description of the requirements of the view."""
        words = [NEEDS[capability] for capability in self.requires]
        words += [" or ".join(NEEDS[capability] for capability in self.any_of)] if self.any_of else []
        return " and ".join(words) or "any language model"

    def supports(self, model: LanguageModel) -> bool:
        """Whether a model meets the requirements of the view."""

        def has(capability: Capability) -> bool:
            return has_capability(model, capability) and known_structure(model, capability)

        one = not self.any_of or any(map(has, self.any_of))
        return all(map(has, self.requires)) and one and not any(has_capability(model, each) for each in self.excludes)


HEAD_CHOICE = "clearstory.lens.probes.attention:chosen_head"

VIEWS: dict[str, ViewSpec] = {
    "tokens": ViewSpec("clearstory.lens.probes.tokenization:tokenization"),
    "embeddings": ViewSpec("clearstory.lens.probes.embeddings:embeddings", EMBEDDINGS),
    "neighbours": ViewSpec("clearstory.lens.probes.embeddings:neighbours", EMBEDDINGS),
    "analogy": ViewSpec("clearstory.lens.probes.embeddings:analogy", EMBEDDINGS),
    "projection": ViewSpec("clearstory.lens.probes.projection:projection", EMBEDDINGS),
    "semantic-axis": ViewSpec("clearstory.lens.probes.projection:semantic_axis", EMBEDDINGS),
    "contextual-embeddings": ViewSpec(
        "clearstory.lens.probes.contextual_embeddings:contextual_embeddings",
        EMBEDDINGS,
        any_of=(Capability.HIDDEN_STATES, Capability.RECURRENT_STATE),
    ),
    "positions": ViewSpec("clearstory.lens.probes.positions:positions", RESIDUAL),
    "architecture": ViewSpec("clearstory.lens.probes.architecture:architecture"),
    "next-token": ViewSpec("clearstory.lens.probes.predictions:next_token", CAUSAL, lists_vocabulary=True),
    "surprisal": ViewSpec("clearstory.lens.probes.surprisal:surprisal", CAUSAL),
    "generation": ViewSpec("clearstory.lens.probes.generation:generation", CAUSAL, needs_generator=True),
    "fill-mask": ViewSpec("clearstory.lens.probes.predictions:fill_mask", (Capability.MLM_HEAD,)),
    "attention": ViewSpec("clearstory.lens.probes.attention:attention", ATTENTION, choice=HEAD_CHOICE),
    "alignment": ViewSpec("clearstory.lens.probes.alignment:alignment", (*ATTENTION, Capability.SOURCE)),
    "combined-heads": ViewSpec("clearstory.lens.probes.attention:combined_heads", ATTENTION),
    "head": ViewSpec("clearstory.lens.probes.attention_head:attention_head", ATTENTION_RESIDUAL, choice=HEAD_CHOICE),
    "heads": ViewSpec("clearstory.lens.probes.head_types:head_types", ATTENTION),
    "dependency-heads": ViewSpec(
        "clearstory.lens.probes.dependency_heads:dependency_heads", ATTENTION_RESIDUAL, slow=True
    ),
    "qk-circuit": ViewSpec("clearstory.lens.probes.qk_circuit:qk_circuit", ATTENTION_RESIDUAL),
    "logit-lens": ViewSpec("clearstory.lens.probes.residual_stream:logit_lens", RESIDUAL),
    "logit-attribution": ViewSpec("clearstory.lens.probes.logit_attribution:logit_attribution", CAUSAL_RESIDUAL),
    "residual-norms": ViewSpec("clearstory.lens.probes.residual_stream:residual_norms", RESIDUAL),
    "neurons": ViewSpec("clearstory.lens.probes.logit_attribution:neurons", CAUSAL_RESIDUAL),
    "interventions": ViewSpec("clearstory.lens.probes.interventions:interventions", RESIDUAL),
    "ablation": ViewSpec("clearstory.lens.probes.interventions:ablation", RESIDUAL, slow=True),
    "activation-patching": ViewSpec(
        "clearstory.lens.probes.activation_patching:activation_patching", RESIDUAL, slow=True
    ),
    "gates": ViewSpec("clearstory.lens.probes.recurrent_units:gate_activations", RECURRENT),
    "activations": ViewSpec("clearstory.lens.probes.recurrent_units:activations", RECURRENT),
    "gradient-reach": ViewSpec(
        "clearstory.lens.probes.gradient_reach:gradient_reach",
        (Capability.EMBEDDINGS, Capability.CAUSAL, Capability.GRADIENTS),
        excludes=(Capability.SOURCE,),
    ),
    "attribution": ViewSpec(
        "clearstory.lens.probes.label_attribution:attribution",
        (Capability.CLASSIFIER,),
        choice="clearstory.lens.probes.label_attribution:chosen_label",
    ),
    "layer-similarity": ViewSpec(
        "clearstory.lens.probes.layer_similarity:layer_similarity",
        EMBEDDINGS,
        any_of=(Capability.HIDDEN_STATES, Capability.RECURRENT_STATE),
        excludes=(Capability.SOURCE,),
        comparison="clearstory.lens.probes.layer_similarity:layer_changes",
    ),
    "viterbi": ViewSpec("clearstory.lens.probes.hmm_states:viterbi", HMM_STATES),
    "posteriors": ViewSpec("clearstory.lens.probes.hmm_states:posteriors", HMM_STATES),
    "experts": ViewSpec("clearstory.lens.probes.experts:experts", (Capability.EXPERTS,)),
    "backoff": ViewSpec("clearstory.lens.probes.ngram_counts:backoff", NGRAM_COUNTS),
    "ngram-counts": ViewSpec("clearstory.lens.probes.ngram_counts:ngram_counts", NGRAM_COUNTS),
}
"""Function and requirements of each view by name."""


def load_view(name: str) -> Callable[..., View]:
    """The function of a view. Raises UnknownName with the nearest names."""
    if name not in VIEWS:
        raise UnknownName(f"unknown view '{name}'; {nearest(name, VIEWS)}")
    return load_function(VIEWS[name].function)


def load_choice(name: str) -> Callable[..., dict[str, Any]] | None:
    """The function that returns the settings which a view chooses; None if there are none."""
    choice = VIEWS[name].choice
    return None if choice is None else load_function(choice)


def load_comparison(name: str) -> Callable[..., View] | None:
    """The function that compares two models; None for a view of which the difference is taken."""
    comparison = VIEWS[name].comparison
    return None if comparison is None else load_function(comparison)


def load_function(reference: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module, function = reference.split(":")
    loaded: Callable[..., Any] = getattr(import_module(module), function)
    return loaded


def supported_views(model: LanguageModel) -> list[str]:
    """The names of the views that a model supports."""
    return [name for name, spec in VIEWS.items() if spec.supports(model)]


def check_supported(name: str, model: LanguageModel) -> None:
    """Raise CannotDo, in one sentence with the supported views, for a model that does not support this view."""
    spec = VIEWS[name]
    if spec.supports(model):
        return
    *others, last = supported_views(model)
    supported = f"it supports {', '.join(others)} and {last}"
    for capability in (*spec.requires, *spec.any_of):
        try:
            require(model, capability)
        except CannotDo as error:
            raise CannotDo(f"the view '{name}' needs {spec.needs}, and {error}; {supported}") from None
        if not known_structure(model, capability):
            raise CannotDo(
                f"the view '{name}' does not support the components of this model ({family_name(model)}), a "
                f"{type(model).__name__}, which has {NEEDS[capability]} of its own; {supported}"
            )
    excluded = next(each for each in spec.excludes if has_capability(model, each))
    raise CannotDo(
        f"the view '{name}' does not support models with the capability {excluded}, which this model "
        f"({family_name(model)}) has; {supported}"
    )
