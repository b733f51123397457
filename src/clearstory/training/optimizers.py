"""Optimizers (AdamW, SGD, Muon and row-wise Adagrad), the assignment of parameters to them, and the learning rate
schedule.

`torch.optim.Optimizer` is not used: making one imports torch._dynamo, about two seconds of every training's start. The
arithmetic of AdamW is torch's all the same: its functional form needs no Optimizer.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from clearstory.models.heads import ClassificationHead
from clearstory.models.layer_depths import parameters_by_depth
from clearstory.training.settings import TrainingSettings


class Optimizer:
    """Parameter groups with their settings (`lr` among them), and the state of each parameter by name."""

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        self.groups = [{**group, "params": list(group["params"])} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        raise NotImplementedError

    @property
    def parameters(self) -> Iterable[Tensor]:
        """All parameters of all groups."""
        return (p for group in self.groups for p in group["params"])

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for p in self.parameters:
            p.grad = None


class AdamW(Optimizer):
    """Adam with decoupled weight decay. Loshchilov and Hutter 2019, algorithm 2; torch's fused kernels."""

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__([{"lr": lr, **group} for group in groups])
        self.betas = betas
        self.eps = eps
        self.dense: dict[Tensor, Tensor] = {}  # gradients of tables, zero between steps: their memory is kept

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient. A table whose gradient has only some rows is updated as one whose
        other rows are zero.
        """
        for group in self.groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            tables = {p: p.grad for p in params if p.grad is not None and p.grad.is_sparse}
            for p, rows in tables.items():
                if p not in self.dense:
                    self.dense[p] = torch.zeros_like(p)
                p.grad = self.dense[p].index_copy_(0, rows._indices()[0], rows._values())
            for p in params:
                if not self.state[p]:
                    self.state[p] = {
                        "step": torch.zeros((), dtype=torch.float32, device=p.device),
                        "exp_avg": torch.zeros_like(p),
                        "exp_avg_sq": torch.zeros_like(p),
                    }
            states = [self.state[p] for p in params]
            adamw(
                params,
                [p.grad for p in params if p.grad is not None],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=self.eps,
                maximize=False,
            )
            for p, rows in tables.items():
                self.dense[p].index_fill_(0, rows._indices()[0], 0)


MIN_ROWS = 4096
"""Rows of a table from which its gradient is kept by row: 1,000 tokens of a batch meet less than a quarter of them."""


def tables_with_row_gradients(model: nn.Module, settings: TrainingSettings) -> list[nn.Embedding]:
    """Embeddings whose gradient can be stored by row: those of classifiers on a CPU that AdamW updates.

    In other models the embedding is the output matrix, too, or its gradient is as large as that one's.
    """
    if not isinstance(model, ClassificationHead) or settings.optimizer == "sgd":
        return []
    tables = [each for each in model.modules() if type(each) is nn.Embedding and not each.sparse]
    return [
        each
        for each in tables
        if each.weight.requires_grad and each.weight.device.type == "cpu" and each.num_embeddings >= MIN_ROWS
    ]


@contextmanager
def row_gradients(tables: Sequence[nn.Embedding]) -> Iterator[None]:
    """Context manager in which gradients of embedding tables contain only the rows that were looked up."""
    for table in tables:
        table.sparse = True
    try:
        yield
    finally:
        for table in tables:
            table.sparse = False


class SGD(Optimizer):
    """theta <- theta - lr · (gradient + decay · theta). Robbins and Monro 1951; without momentum."""

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float) -> None:
        super().__init__([{"lr": lr, **group} for group in groups])

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, [p.grad for p in params if p.grad is not None], alpha=-group["lr"])


class RowAdagrad(Optimizer):
    """row <- row - lr · gradient / √(sum of all its squared gradients so far), for rows with a sparse gradient only.

    Duchi et al. 2011; one sum for each row as in Naumov et al. 2019. The cost depends on the rows in a batch, not on
    the size of the table. The size of a step does not depend on the gradient's scale.
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__([{"params": params, "lr": lr}])

    @torch.no_grad()
    def step(self) -> None:
        """Update every row that has a gradient."""
        for group in self.groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                state = self.state[table]
                if not state:
                    state["sum"] = table.new_zeros(table.shape[0])
                # Uncoalesced on purpose: sorting a million indices costs more than adding into them.
                rows, gradients = table.grad._indices()[0], table.grad._values()
                state["sum"].index_add_(0, rows, gradients.square().sum(-1))
                scale = (state["sum"][rows] + 1e-30).rsqrt_()
                table.index_add_(0, rows, gradients * scale.unsqueeze(-1), alpha=-group["lr"])


NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that pushes singular values towards 1: steepest at 0, not monotone near 1."""


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Each (R, C) matrix of a batch with its singular values pushed into about [0.7, 1.2], by Newton-Schulz iteration.

    Jordan et al. 2024.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.flatten(-2).norm(dim=-1).clamp(min=1e-7)[..., None, None]
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(Optimizer):
    """theta <- theta - lr · (√max(1, R/C) · orthogonal(momentum) + decay · theta), for matrices only.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon), with its scale √max(1, R/C). torch's own Muon orthogonalises
    in bf16 only, 19 to 28 times slower than fp32 on a CPU without bf16 arithmetic; this one does so in `compute_dtype`,
    all matrices of one shape in one batch.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__([{"params": params, "lr": lr, "momentum": momentum, "weight_decay": weight_decay}])
        self.compute_dtype = compute_dtype

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix that has a gradient."""
        for group in self.groups:
            for params in group_by_shape(group["params"]).values():
                self.update(params, group)

    def update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Update all matrices of one shape together."""
        grads = [p.grad for p in params if p.grad is not None]
        momenta = []
        for p in params:
            state = self.state[p]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(p)
            momenta.append(state["momentum_buffer"])
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        nesterov = torch.stack(torch._foreach_lerp(grads, momenta, group["momentum"]))
        scale = max(1.0, params[0].shape[0] / params[0].shape[1]) ** 0.5
        updates = orthogonalize(nesterov.to(self.compute_dtype or nesterov.dtype)).to(nesterov.dtype)
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(params, list(updates.unbind()), alpha=-group["lr"] * scale)


def group_by_shape(params: Iterable[Tensor]) -> dict[tuple[int, ...], list[Tensor]]:
    """Parameters with a gradient, grouped by shape, in order."""
    groups: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
    for p in params:
        if p.grad is not None:
            groups[tuple(p.shape)].append(p)
    return groups


INNER_PREFIXES = ("blocks.", "layers.", "encoder.blocks.", "decoder.blocks.", "encoder.layers.", "decoder.layers.")
"""Prefixes of the names of weights between a model's embedding and its unembedding."""


class OptimizerSet:
    """The optimizers of a run, stepped together; each parameter belongs to exactly one.

    AdamW updates everything; with `optimizer=muon`, everything except the matrices inside blocks and layers; with
    `optimizer=sgd`, nothing. Tables with sparse gradients are updated by row-wise Adagrad. Weight decay applies to
    matrices only, not to gains and biases.
    """

    def __init__(self, model: nn.Module, settings: TrainingSettings) -> None:
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        tables = {m.weight for m in model.modules() if isinstance(m, nn.Embedding) and m.sparse}
        muon = settings.optimizer == "muon"
        inner = [p for name, p in named.items() if muon and p.ndim == 2 and name.startswith(INNER_PREFIXES)]
        rest = [p for p in named.values() if p not in tables and not any(p is each for each in inner)]
        depths = parameters_by_depth(model)
        scales = {p: settings.layer_decay**above for above, depth in enumerate(depths[::-1]) for p in depth.values()}
        groups = [
            {"params": params, "weight_decay": decay, "scale": scale}
            for scale in sorted(set(scales.values()))
            for decay, params in (
                (settings.weight_decay, [p for p in rest if p.ndim >= 2 and scales[p] == scale]),
                (0.0, [p for p in rest if p.ndim < 2 and scales[p] == scale]),
            )
        ]
        first: Optimizer = SGD(groups, settings.learning_rate)
        if settings.optimizer != "sgd":
            first = AdamW(groups, settings.learning_rate, (settings.beta1, settings.beta2), settings.epsilon)
        # Each optimizer with its peak learning rate, and whether it follows the schedule.
        self.optimizers: list[tuple[Optimizer, float, bool]] = [(first, settings.learning_rate, True)]
        dtype = torch.bfloat16 if settings.precision == "bf16" else None
        for scale in sorted({scales[p] for p in inner}):
            peak = settings.muon_learning_rate * scale
            matrices = [p for p in inner if scales[p] == scale]
            by_muon = Muon(matrices, peak, weight_decay=settings.weight_decay, compute_dtype=dtype)
            self.optimizers.append((by_muon, peak, True))
        if tables:
            # Adagrad's steps shrink by themselves: it follows no schedule.
            adagrad = RowAdagrad(tables, settings.recall_learning_rate)
            self.optimizers.append((adagrad, settings.recall_learning_rate, False))

    def step(self, factor: float) -> None:
        """One step at this share of each optimizer's peak learning rate; gradients are set to None afterwards."""
        for optimizer, peak, scheduled in self.optimizers:
            for group in optimizer.groups:
                group["lr"] = (peak * factor if scheduled else peak) * group.get("scale", 1.0)
            optimizer.step()
            optimizer.zero_grad()

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """The state of every parameter, under the parameter's name and the state's: `embedding.weight.exp_avg`."""
        names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
        return {
            f"{names[p]}.{key}": value
            for optimizer, _, _ in self.optimizers
            for p, state in optimizer.state.items()
            for key, value in state.items()
        }

    def load(self, model: nn.Module, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned. Tensors are copied, so that the file they came from may be deleted."""
        owner = {p: optimizer for optimizer, _, _ in self.optimizers for p in optimizer.parameters}
        named = dict(model.named_parameters())
        for key, value in tensors.items():
            name, _, state_name = key.rpartition(".")
            owner[named[name]].state[named[name]][state_name] = value.to(named[name].device, copy=True)

    def reset(self) -> None:
        """Clear all state, as before the first step."""
        for optimizer, _, _ in self.optimizers:
            optimizer.state.clear()


def lr_factor(step: int, steps: int, settings: TrainingSettings) -> float:
    """The learning rate at `step` (from 0) of a run of `steps`, as a factor of its peak.

    Warm-up rises linearly; then cosine (Loshchilov and Hutter 2017, eq. 5), linear, constant, or wsd: constant until
    the last `decay_share` of the run, then linear (Hu et al. 2024); or noam: √(warmup / step), which with a peak of
    1/√(width · warmup) is Vaswani et al. 2017, eq. 3.

    >>> linear = TrainingSettings(schedule="linear", warmup_steps=2, final_learning_rate=0)
    >>> [round(lr_factor(step, 10, linear), 3) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.125]
    """
    warmup = settings.warmup_steps
    if settings.warmup_ratio is not None:
        warmup = math.ceil(settings.warmup_ratio * steps)
    # At most half of a short run: a warm-up longer than the run would never reach the peak.
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "noam":
        return math.sqrt(max(1, warmup) / (step + 1))
    progress = (step - warmup) / max(1, steps - warmup)
    final = settings.final_learning_rate
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "cosine":
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
    if settings.schedule == "linear":
        return 1 - (1 - final) * progress
    decay_start = 1 - settings.decay_share
    decayed = max(0.0, (progress - decay_start) / settings.decay_share) if settings.decay_share else 0.0
    return 1 - (1 - final) * decayed
