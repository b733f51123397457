"""Parts of an adapter other than LoRA of linear layers: they can be merged into a model, but not trained further.

modules_to_save        whole weights, trained in place of the base model's
lm_head, embeddings    LoRA of the output layer and of embeddings, both of which may be one tied matrix: it is untied
DoRA (Liu et al. 2024) the length of each row of a merged matrix
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from clearstory.errors import BadInput, CorruptFile
from clearstory.formats.hf.config_json import format_of_model, weight_map_of
from clearstory.formats.hf.load_weights import state_to_store, stored_config
from clearstory.formats.lora.adapter_heads import EMBEDDING, UNEMBEDDING
from clearstory.formats.lora.fused_layers import FusedLinear, LoRAMatrices
from clearstory.formats.no_init import build_with_weights, empty_state_dict


@dataclass
class WholeWeights:
    """Changes of an adapter in addition to its LoRA of linear layers, by names of transformers.

    Args:
        replaced: whole weights.
        matrices: LoRA of the output layer, (A, B) with B A of the weight's shape.
        embeddings: LoRA of embeddings, (A, B) with (B A)ᵀ of the weight's shape.
        magnitudes: DoRA's length of each row, by linear layer.
    """

    replaced: dict[str, Tensor] = field(default_factory=dict)
    matrices: dict[str, LoRAMatrices] = field(default_factory=dict)
    embeddings: dict[str, LoRAMatrices] = field(default_factory=dict)
    magnitudes: dict[str, Tensor] = field(default_factory=dict)

    @property
    def layers(self) -> list[str]:
        """The layers that are changed, without a repeated base weight."""
        names = {name.removesuffix(".weight") for name in self.replaced}
        return sorted(names | self.matrices.keys() | self.embeddings.keys() | self.magnitudes.keys())


@torch.no_grad()
def apply_whole_weights(model: nn.Module, changes: WholeWeights, linears: Mapping[str, FusedLinear]) -> Any:
    """A model with the changes applied, after its LoRA is merged. Raises BadInput for a weight that it lacks."""
    if not changes.layers:
        return model
    state = dict(model.state_dict())
    for layer, magnitude in changes.magnitudes.items():
        scale_rows(state, linears[layer], magnitude)
    config: Any = model.config
    form, extra = format_of_model(model)
    external = external_state(model, config, extra, state)
    for name in (*changes.replaced, *(f"{layer}.weight" for layer in (*changes.matrices, *changes.embeddings))):
        if name not in external:
            raise BadInput(
                f"the adapter changes {name}, which the base model, a {form.name}, does not have; if it was trained on "
                "another class with the same weights, merge it with peft into a model of that class"
            )
    changed = {name: check_shape(name, tensor, external[name]) for name, tensor in changes.replaced.items()}
    for layer, each in changes.matrices.items():
        name = f"{layer}.weight"
        changed[name] = add_product(name, changed.get(name, external[name]), each.b @ each.a, each)
    for layer, each in changes.embeddings.items():
        name = f"{layer}.weight"
        changed[name] = add_product(name, changed.get(name, external[name]), (each.b @ each.a).t(), each)
    if getattr(config, "tie_embeddings", False):
        config = replace(config, tie_embeddings=is_still_tied(changed, external, form.duplicate_weights))
    weights = dict(weight_map_of(form, stored_config(config, extra)).to_native({**external, **changed}))
    if getattr(config, "tie_embeddings", False):
        weights.pop(UNEMBEDDING, None)
    new: Any = build_with_weights(config, {name: weights[name] for name in empty_state_dict(config)})
    new.hf_class = getattr(model, "hf_class", None)
    return new


def external_state(model: nn.Module, config: Any, extra: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by their names in transformers; a tied output layer is also there under its own name."""
    form, _ = format_of_model(model)
    whole = {**state_to_store(model, config, extra), **state}
    if getattr(config, "tie_embeddings", False) and EMBEDDING in whole:
        whole[UNEMBEDDING] = whole[EMBEDDING]
    return dict(weight_map_of(form, stored_config(config, extra)).from_native(whole))


def is_still_tied(changed: Mapping[str, Tensor], external: Mapping[str, Tensor], duplicates: Mapping[str, str]) -> bool:
    """Whether the output layer still equals the embedding."""
    for name, original in duplicates.items():
        if name in external and original in external and (name in changed or original in changed):
            new, old = changed.get(name, external[name]), changed.get(original, external[original])
            if not torch.equal(new, old):
                return False
    return True


def check_shape(name: str, tensor: Tensor, base: Tensor) -> Tensor:
    """A whole weight in the dtype of the base model's. Raises CorruptFile for another shape."""
    if tensor.shape != base.shape:
        raise CorruptFile(
            f"the adapter holds {name} of shape {list(tensor.shape)}, and the base model has {list(base.shape)}; they "
            "belong to different models"
        )
    return tensor.to(base.dtype)


def add_product(name: str, base: Tensor, product: Tensor, lora: LoRAMatrices) -> Tensor:
    """A weight with (alpha / rank) times a product of LoRA matrices added, in float32 at least."""
    if product.shape != base.shape:
        raise CorruptFile(
            f"the adapter's matrices of {name} make shape {list(product.shape)}, and the base model has "
            f"{list(base.shape)}; they belong to different models"
        )
    wide = torch.promote_types(base.dtype, torch.float32)
    return base.to(wide).add(product.to(wide), alpha=lora.alpha / len(lora.a)).to(base.dtype)


def scale_rows(state: dict[str, Tensor], linear: FusedLinear, magnitude: Tensor) -> None:
    """Give each row of a linear layer's merged matrices the length that DoRA learned."""
    if magnitude.numel() != sum(linear.out_features):
        raise CorruptFile(
            f"the adapter holds {magnitude.numel():,} magnitudes of {linear.hf_name}, which has "
            f"{sum(linear.out_features):,} outputs; they belong to different models"
        )
    parts = torch.split(magnitude.flatten(), list(linear.out_features))
    for name, part in zip(linear.native_names, parts, strict=True):
        weight = state[f"{name}.weight"]
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        state[f"{name}.weight"] = (wide * (part.to(wide) / wide.norm(dim=1)).unsqueeze(1)).to(weight.dtype)
