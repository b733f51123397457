"""Inference copy of a model: constant weights are packed in one precision when the model is opened, and never saved.

Decoding reads every weight for each token, so its speed is that of reading memory: narrower weights are faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import CannotDo
from clearstory.models.base import IGNORE_INDEX, LanguageModel, State, TokenBatch, output_weight, reads_source
from clearstory.models.capabilities import Capability, family_name
from clearstory.models.cross_entropy import CHUNK_LOGITS
from clearstory.models.device import on_huge_pages
from clearstory.models.matmul.block_linear import BlockQuantizedLinear
from clearstory.models.matmul.fastest_precision import fastest_precision
from clearstory.models.matmul.packed import PackedLinear, PanelLinear, is_available, pack_linear
from clearstory.models.native.library import load_library
from clearstory.models.native.panels import PanelPrecision
from clearstory.models.precision import PackedPrecision, Precision
from clearstory.models.shallow_copy import shallow_copy
from clearstory.models.top_tokens import top_tokens
from clearstory.models.transformer.decoder import Transformer
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.transformer.encoder_decoder_inference import EncoderDecoderForInference, has_native_form
from clearstory.models.transformer.inference import DecoderForInference, JoinedLinearFactory, can_join


def min_steps_for_packing() -> int:
    """Number of decoding steps above which packing weights in fp16 saves more time than it takes, 0.4 ns per weight and
    step.

    Packing takes 1 to 7 ns a weight for the compiled kernels, the more the slower the system gives memory (3 to 18
    steps of SmolLM2-135M), and 8 to 11 for PyTorch's (22 to 29).
    """
    return 32 if load_library() is None else 16


def inference_model(
    model: LanguageModel, precision: Precision = "auto", batch_size: int = 1, steps: int | None = None
) -> LanguageModel:
    """A view of the model with its linear layers, the unembedding included, packed in this precision.

    Embeddings and norms are unchanged. Under "auto", a model is returned unchanged that is not fp32 on a CPU, has no
    output embeddings, or decodes only a few `steps`, unless its weights are in blocks. Raises CannotDo for a precision
    that this model, its device or this build of torch does not have. A view is returned as it is.
    """
    if isinstance(model, InferenceView):
        return model
    weight = output_weight(model)
    if precision == "auto":
        if weight is None or weight.dtype != torch.float32 or weight.device.type != "cpu":
            return model
        if steps is not None and steps < min_steps_for_packing() and not has_blocks(model):
            return model
    elif weight is None:
        raise CannotDo(
            f"this model ({family_name(model)}) has no matrices to pack in {precision}; open it without --precision"
        )
    elif weight.device.type != "cpu":
        raise CannotDo(
            f"{precision} weights are packed for the CPU, but the model is on {weight.device}; use --device cpu, "
            "or open it without --precision"
        )
    with on_huge_pages(4 * n_linear_weights(model)):
        if has_native_form(model) and (panels := panel_precision(model, precision)) is not None:
            return encoder_decoder_view(model, panels)
        return packed_view(model, linear_packer(model, precision))


MIN_WEIGHTS_FOR_FP16 = 2**23
"""Number of weights above which "auto" uses fp16 if it is faster: fewer weights, 32 MB in fp32, stay in the cache."""


def n_linear_weights(model: object) -> int:
    """Number of weights of a model's linear layers and unembedding."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    weight = output_weight(model)
    layers = sum(each.in_features * each.out_features for each in modules if isinstance(each, nn.Linear))
    return layers + (0 if weight is None else weight.numel())


def linear_packer(model: LanguageModel, precision: Precision) -> JoinedLinearFactory:
    """A function that packs linear layers of one input, in a precision or as in the file under "auto".

    Weights that are in blocks of 4 or 8 bits stay so under "auto". With layers in int4 the unembedding is int8: it
    decides between near-equal tokens.
    """
    in_blocks = has_blocks(model)
    chosen = chosen_precision(model, precision)

    def pack(linears: Sequence[nn.Linear]) -> nn.Module:
        exact = {precision_of_blocks(each) for each in linears}
        wanted = chosen
        if precision == "auto" and len(exact) == 1:
            wanted = exact.pop() or chosen
        is_unembedding = linears[0].out_features == model.vocab
        if is_unembedding and (chosen == "int4" or (precision == "auto" and in_blocks)):
            wanted = "int8"
        if precision in ("auto", "int4") and not is_available(wanted):
            wanted = chosen
        return pack_linear(linears, wanted)

    return pack


def chosen_precision(model: LanguageModel, precision: Precision) -> PackedPrecision:
    """The precision of plain weights: under "auto" the fastest one, for a model that the cache does not hold."""
    if precision != "auto":
        return precision
    return fastest_precision() if n_linear_weights(model) >= MIN_WEIGHTS_FOR_FP16 else "fp32"


def panel_precision(model: LanguageModel, precision: Precision) -> PanelPrecision | None:
    """The precision of panels of weights; None for one that they do not have."""
    chosen = chosen_precision(model, precision)
    return chosen if chosen in ("fp32", "fp16", "int8") else None


def precision_note(model: LanguageModel) -> str | None:
    """A sentence on the precisions that "auto" chose for a view; None if they are fp32."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    found = sorted({each.precision for each in modules if isinstance(each, PackedLinear)} - {"fp32"})
    if not found:
        return None
    reason = "as in the file" if "int4" in found or "int8" in found else "the fastest here"
    return f"weights are {' and '.join(found)}, {reason}; --precision fp32 rounds nothing"


def has_blocks(model: object) -> bool:
    """Whether weights of a model are in the blocks of a file, and are dequantized at each access until packed."""
    return isinstance(model, nn.Module) and any(isinstance(each, BlockQuantizedLinear) for each in model.modules())


def precision_of_blocks(linear: nn.Linear) -> PackedPrecision | None:
    """The precision that holds a layer's blocks; None for plain weights."""
    if not isinstance(linear, BlockQuantizedLinear):
        return None
    return linear.format.precision


def packed_view(model: LanguageModel, pack: JoinedLinearFactory) -> InferenceView:
    """A view of a model with its linear layers packed one by one, and the blocks of a decoder joined."""
    weight = output_weight(model)
    if weight is None:
        raise CannotDo(f"this model ({family_name(model)}) has no matrices to pack; open it without --precision")
    made: dict[int, nn.Module] = {}

    def replace(name: str, module: nn.Module) -> nn.Module | None:
        if not isinstance(module, nn.Linear):
            return None
        shared = module.blocks if isinstance(module, BlockQuantizedLinear) else module.weight
        if id(shared) not in made:
            made[id(shared)] = pack([module])
        return made[id(shared)]

    base_model = (
        DecoderForInference(cast(Transformer, model), pack)
        if can_join(model)
        else shallow_copy(cast(nn.Module, model), replace)
    )
    bias = cast(Any, model).unembedding_bias if reads_source(model) else None
    return InferenceView(model, base_model, made.get(id(weight)) or pack([linear_from_weight(weight, bias)]))


def encoder_decoder_view(model: LanguageModel, precision: PanelPrecision) -> InferenceView:
    """A view of an encoder-decoder whose stacks and unembedding the compiled kernels compute."""
    network = cast(EncoderDecoder, model)
    unembed = PanelLinear([linear_from_weight(network.output_weight, network.unembedding_bias)], precision)
    return InferenceView(model, EncoderDecoderForInference(network, precision), unembed)


class InferenceView(nn.Module):
    """A model with its linear layers replaced, the unembedding included, and its Transformer blocks in their inference
    form; all else is shared with the original.
    """

    trains = False

    def __init__(self, model: LanguageModel, base_model: nn.Module, unembed: nn.Module) -> None:
        super().__init__()
        self.base_model: Any = base_model
        self.unembed = unembed
        weight = output_weight(model)
        assert weight is not None, "a view is made of a model with output embeddings"
        self.config: Any = getattr(model, "config", None)
        self.width = weight.shape[1]
        self.vocab: int = model.vocab
        self.context: int | None = model.context
        # Views of attention and hidden states need the modules of the model itself.
        joined = isinstance(base_model, DecoderForInference | EncoderDecoderForInference)
        hidden = {Capability.ATTENTION, Capability.HIDDEN_STATES, Capability.EMBEDDINGS} if joined else set()
        self.capabilities: frozenset[Capability] = model.capabilities - {Capability.GRADIENTS} - hidden
        self.requires_grad_(False)
        self.eval()

    def init_state(self, batch_size: int = 1, **source: TokenBatch | None) -> State:
        """The state of `batch_size` empty sequences, after a `source` where the model reads one."""
        return cast(State, self.base_model.init_state(batch_size, **source))

    @torch.no_grad()
    def forward(self, tokens: TokenBatch, state: State | None = None) -> tuple[Float[Tensor, "B T W"], State | None]:
        """Hidden states after each token, (B, T, W), and the state after the last; without a state, None."""
        return cast("tuple[Tensor, State | None]", self.base_model.forward(tokens, state))

    @torch.no_grad()
    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token for these hidden states, (..., V)."""
        logits: Tensor = self.unembed(hidden[..., : self.width])
        # Behind the hidden state are the logits of hashed n-grams, where the model has them.
        return logits if hidden.shape[-1] == self.width else logits + hidden[..., self.width :]

    @torch.no_grad()
    def top_tokens(self, hidden: Float[Tensor, "R W"], count: int) -> tuple[Float[Tensor, "R K"], Int[Tensor, "R K"]]:
        """Log-probabilities of the `count` most likely next tokens and their ids; see `top_tokens`."""
        if isinstance(self.unembed, PanelLinear):
            return self.unembed.matrix.top(hidden, count)
        return top_tokens(self.logits(hidden), count)

    @torch.no_grad()
    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: State | None = None
    ) -> tuple[Float[Tensor, "B T"], State | None]:
        """Negative log-likelihood of each target in nats, (B, T), 0 where it is IGNORE_INDEX; computed in chunks."""
        hidden, state = self.forward(tokens, state)
        flat, wanted = hidden.flatten(0, 1), targets.flatten()
        nll = flat.new_zeros(len(flat))
        scored = (wanted != IGNORE_INDEX).nonzero().squeeze(1)
        for chunk in torch.split(scored, max(1, CHUNK_LOGITS // self.vocab)):
            own = F.cross_entropy(self.logits(flat[chunk]), wanted[chunk], reduction="none")
            nll[chunk] = own.to(nll.dtype)
        return nll.view(targets.shape), state

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Raises CannotDo: a view holds copies in forms that only this machine reads."""
        raise CannotDo("this is an inference copy of a model and cannot be saved; save the original model")


def linear_from_weight(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer with this weight and bias, shared and without gradients."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight.data, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.data, requires_grad=False)
    return linear
