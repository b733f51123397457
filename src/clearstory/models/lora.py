"""LoRA: trainable low-rank updates of linear layers with frozen base weights. Hu et al. 2021.

    y = W x + b + (alpha / rank) B A x          eq. 3: W and b frozen; A (rank, in) and B (out, rank) trained

B starts at zero, so the adapted model starts equal to its base. Merged, W + (alpha / rank) B A is one matrix again, at
no cost at inference.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import BadSetting, CannotDo, UnknownName, nearest
from clearstory.models.autograd_functions import Linear
from clearstory.models.base import output_weight
from clearstory.models.capabilities import Capability, family_name, has_capability
from clearstory.models.lora_settings import LoRASettings
from clearstory.models.shallow_copy import shallow_copy


class LoRALinear(nn.Module):
    """A frozen linear layer with trainable low-rank matrices A and B.

    >>> map = LoRALinear(nn.Linear(4, 3), a=torch.ones(2, 4), b=torch.zeros(3, 2), alpha=4.0)
    >>> map.scale, torch.equal(map(torch.ones(4)), map.base(torch.ones(4)))
    (2.0, True)
    """

    def __init__(
        self,
        base: nn.Linear,
        *,
        a: Float[Tensor, "rank inside"],
        b: Float[Tensor, "outside rank"],
        alpha: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.base = frozen_linear(base, base.weight)
        self.lora_a = nn.Parameter(a)
        self.lora_b = nn.Parameter(b)
        self.alpha = alpha
        self.dropout = dropout

    @property
    def rank(self) -> int:
        """Rows of A and columns of B."""
        return self.lora_a.shape[0]

    @property
    def scale(self) -> float:
        """alpha / rank, the factor of the product B A."""
        return self.alpha / self.rank

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), computed in the dtype of x."""
        projected = F.linear(F.dropout(x, self.dropout, self.training), self.lora_a.to(x.dtype))
        return self.base(x) + self.scale * F.linear(projected, self.lora_b.to(x.dtype))  # type: ignore[no-any-return]  # nn.Module returns Any

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain linear layer with W + (alpha / rank) B A, added in fp32 at least."""
        weight = self.base.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        product = self.lora_b.to(wide) @ self.lora_a.to(wide)
        return frozen_linear(self.base, weight.to(wide).add(product, alpha=self.scale).to(weight.dtype))


def frozen_linear(linear: nn.Linear, weight: Tensor) -> Linear:
    """A linear layer with this weight and the bias of `linear`, without gradients."""
    new = Linear(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
    new.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if linear.bias is not None:
        new.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return new.train(linear.training)


def adapt(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: tuple[str, ...] = LoRASettings.targets,
    dropout: float = 0.0,
    *,
    modules_to_save: tuple[str, ...] = (),
    seed: int | None = None,
) -> Any:
    """A copy of the model with LoRA matrices in each linear layer that `targets` name; only they are trainable, and
    copies of the modules that `modules_to_save` names. The weights of a classification head are trainable too.

    The model itself is unchanged; base weights are shared. A target is the last part of a layer's name (query, value,
    up) or a pattern of whole names (blocks.0.*). A is drawn with `seed` (PyTorch's global generator when None), B is
    zero. Raises UnknownName for a target that matches no layer, CannotDo for a model without linear layers or with LoRA
    already.

    >>> from clearstory.models.build import build
    >>> from clearstory.models.transformer.presets import NANOGPT_CHAR
    >>> model = adapt(build(NANOGPT_CHAR), rank=2)  # 4 blocks, 2 layers in each, 2 · 128 parameters in A and in B
    >>> sum(each.numel() for each in model.parameters() if each.requires_grad)
    4096
    """
    settings = LoRASettings(rank=rank, alpha=alpha, targets=targets, dropout=dropout)
    if not settings.rank:
        raise BadSetting("lora.rank is 0; it must be at least 1")
    if lora_layers(model):
        raise CannotDo("this model already has LoRA layers; merge them first, or continue training them")
    layers = adaptable_layers(model)
    if not layers:
        raise CannotDo(
            f"this model ({family_name(model)}) has no linear layers for LoRA to adapt; train all its weights"
        )
    for target in targets:
        if not any(matches_target(name, target) for name in layers):
            known = sorted({name.rpartition(".")[2] for name in layers})
            raise UnknownName(
                f"lora.targets has '{target}', but no linear layer has that name; {nearest(target, known)}"
            )

    def add_lora(name: str, module: nn.Module) -> nn.Module | None:
        if name not in layers or not any(matches_target(name, target) for target in targets):
            return None
        base = layers[name]
        # As the authors' own code draws it; the paper says a Gaussian.
        bound = 1 / math.sqrt(base.in_features)
        a = torch.empty(rank, base.in_features).uniform_(-bound, bound).to(base.weight)
        return LoRALinear(base, a=a, b=base.weight.new_zeros(base.out_features, rank), alpha=alpha, dropout=dropout)

    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        adapted = shallow_copy(model, add_lora).train(model.training)
    adapted.modules_to_save = find_modules(adapted, modules_to_save)
    for name in whole_modules(adapted):
        for weight in adapted.get_submodule(name).parameters():
            weight.data = weight.data.clone()
            weight.requires_grad_(True)
    return adapted


def find_modules(adapted: nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the modules whose weights are trained in full. Raises UnknownName for a name that no
    module has, BadSetting for one with LoRA.
    """
    weighted = {
        name: each for name, each in adapted.named_modules() if any(True for _ in each.parameters(recurse=False))
    }
    layers = {name: each for name, each in weighted.items() if name and not name.endswith(".base")}
    for wanted in names:
        found = [name for name in layers if matches_target(name, wanted)]
        if not found:
            known = sorted({name.rpartition(".")[2] for name in layers})
            raise UnknownName(
                f"lora.modules_to_save has '{wanted}', but no module has that name; {nearest(wanted, known)}"
            )
        if both := [name for name in found if isinstance(layers[name], LoRALinear)]:
            raise BadSetting(
                f"lora.modules_to_save and lora.targets both have {both[0]}; it is trained either in full or with "
                "LoRA: leave one out"
            )
    return tuple(name for name in layers if any(matches_target(name, wanted) for wanted in names))


def whole_modules(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that are trained and stored in full: those in `modules_to_save`, and those of a head."""
    chosen: tuple[str, ...] = getattr(model, "modules_to_save", ())
    own = [name for name, _ in model.named_children() if is_head(model, name)]
    return (*chosen, *(name for name in own if name not in chosen))


def merge_lora(model: nn.Module) -> Any:
    """A copy of an adapted model with the LoRA products added to the weights; its outputs are the same.

    Weights without LoRA are shared. A model without LoRA gives a copy of itself.
    """
    plain = shallow_copy(model, lambda name, each: each.merged() if isinstance(each, LoRALinear) else None)
    return plain.requires_grad_(True)


def remove_lora(model: nn.Module) -> Any:
    """A copy of the model without its LoRA matrices; base weights are shared."""
    return shallow_copy(model, lambda name, each: each.base if isinstance(each, LoRALinear) else None)


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Every LoRA layer by its name."""
    return {name: each for name, each in model.named_modules() if isinstance(each, LoRALinear)}


def adaptable_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers that a model calls, by name; without its unembedding, which is multiplied in chunks instead,
    and without a classification head, which is trained as a whole.
    """
    unembedding = output_weight(model)
    return {
        name: each
        for name, each in model.named_modules()
        if isinstance(each, nn.Linear) and each.weight is not unembedding and not is_head(model, name)
    }


def is_head(model: nn.Module, name: str) -> bool:
    """Whether a module belongs to the classification head of a model."""
    return has_capability(model, Capability.CLASSIFIER) and name.partition(".")[0] != "backbone"


def matches_target(name: str, target: str) -> bool:
    """Whether a target names the layer of this name.

    >>> matches_target("blocks.0.attention.query", "query"), matches_target("blocks.0.attention.query", "blocks.1.*")
    (True, False)
    """
    name = name.removeprefix("backbone.")
    return name.rpartition(".")[2] == target or fnmatchcase(name, target)
