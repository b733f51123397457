"""LoRA: a model rests, and beside some of its linear maps two narrow matrices learn. Hu et al. 2021.

    y = W x + b + (alpha / rank) B A x          eq. 3: W and b rest; A (rank, in) and B (out, rank) learn

B begins at zero, so the adapted model begins as the one it was made of. Merged, W + (alpha / rank) B A is one matrix
again, and costs nothing.
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
from clearstory.models.lora_settings import LoRASettings
from clearstory.models.shallow_copy import shallow_copy


class LoRALinear(nn.Module):
    """A linear map that rests, and what is learnt beside it.

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
        """How narrow."""
        return self.lora_a.shape[0]

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / self.rank

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the arithmetic of x."""
        inside = F.linear(F.dropout(x, self.dropout, self.training), self.lora_a.to(x.dtype))
        return self.base(x) + self.scale * F.linear(inside, self.lora_b.to(x.dtype))  # type: ignore[no-any-return]  # nn.Module returns Any

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One matrix again: W + (alpha / rank) B A, added up in fp32 at least."""
        weight = self.base.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        product = self.lora_b.to(wide) @ self.lora_a.to(wide)
        return frozen_linear(self.base, weight.to(wide).add(product, alpha=self.scale).to(weight.dtype))


def frozen_linear(linear: nn.Linear, weight: Tensor) -> Linear:
    """A map with this weight and the bias of that one, at rest."""
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
    seed: int | None = None,
) -> Any:
    """The same model with two narrow matrices beside each of its maps that `targets` name; only they learn.

    The model itself is left as it was and shares its numbers. A target is a map's own name (query, value, up) or a
    pattern of whole names (blocks.0.*). A is drawn with `seed` (from torch's own generator when None), B is zero.
    Raises UnknownName for a target that no map has, CannotDo for a model without linear maps or adapted already.

    >>> from clearstory.models.build import build
    >>> from clearstory.models.transformer.presets import NANOGPT_CHAR
    >>> model = adapt(build(NANOGPT_CHAR), rank=2)  # 4 layers, 2 maps in each, 2 · 128 numbers in A and in B
    >>> sum(each.numel() for each in model.parameters() if each.requires_grad)
    4096
    """
    settings = LoRASettings(rank=rank, alpha=alpha, targets=targets, dropout=dropout)
    if not settings.rank:
        raise BadSetting("lora.rank is 0; a model is adapted with a rank of at least 1")
    if lora_layers(model):
        raise CannotDo("this model is adapted already; merge it first, or go on training what it has")
    maps = linear_layers(model)
    if not maps:
        kind = getattr(getattr(model, "config", None), "family", type(model).__name__)
        raise CannotDo(f"this model ({kind}) has no linear maps for LoRA to adapt; train it as a whole")
    for target in targets:
        if not any(matches_target(name, target) for name in maps):
            known = sorted({name.rpartition(".")[2] for name in maps})
            raise UnknownName(
                f"lora.targets names '{target}', and no linear map is called so; {nearest(target, known)}"
            )

    def beside(name: str, module: nn.Module) -> nn.Module | None:
        if name not in maps or not any(matches_target(name, target) for target in targets):
            return None
        base = maps[name]
        # As the authors' own code draws it; the paper says a Gaussian.
        bound = 1 / math.sqrt(base.in_features)
        a = torch.empty(rank, base.in_features).uniform_(-bound, bound).to(base.weight)
        return LoRALinear(base, a=a, b=base.weight.new_zeros(base.out_features, rank), alpha=alpha, dropout=dropout)

    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return shallow_copy(model, beside).train(model.training)


def merge_lora(model: nn.Module) -> Any:
    """The adapted model as a plain one: the same answers, and weights of its own where it was adapted.

    What was not adapted is shared with it. A model that was never adapted comes back as a twin of itself.
    """
    plain = shallow_copy(model, lambda name, each: each.merged() if isinstance(each, LoRALinear) else None)
    return plain.requires_grad_(True)


def remove_lora(model: nn.Module) -> Any:
    """The model as it was before it was adapted, its weights shared."""
    return shallow_copy(model, lambda name, each: each.base if isinstance(each, LoRALinear) else None)


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Every adapted map by its name."""
    return {name: each for name, each in model.named_modules() if isinstance(each, LoRALinear)}


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear maps that a model calls, by name. Its unembedding is none: its rows are words' vectors, which are
    multiplied a few at a time and never called.
    """
    words = getattr(model, "output_weight", None)
    return {
        name: each for name, each in model.named_modules() if isinstance(each, nn.Linear) and each.weight is not words
    }


def matches_target(name: str, target: str) -> bool:
    """Whether a target means the map of this name.

    >>> matches_target("blocks.0.attention.query", "query"), matches_target("blocks.0.attention.query", "blocks.1.*")
    (True, False)
    """
    return name.rpartition(".")[2] == target or fnmatchcase(name, target)
