"""A family that views do not know: each view works with what the family declares, or refuses in one sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import CannotDo
from clearstory.lens.probes.gradient_reach import gradient_reach
from clearstory.lens.registry import VIEWS, supported_views
from clearstory.lens.rendering.render import render
from clearstory.lens.views.diagrams import Figure
from clearstory.models import families
from clearstory.models.base import TokenBatch
from clearstory.models.build import build, count_parameters
from clearstory.models.capabilities import Capability
from clearstory.models.config import CausalConfig
from clearstory.models.families import Family
from clearstory.recipes.inference.inspect import inspect
from clearstory.text.train_tokenizer import train_tokenizer

TOKENIZER = train_tokenizer("characters", ["abcdefghij "])
TEXT = "abc defghij abc" * 4
MINIMAL = (Capability.CAUSAL,)
EVERYTHING = tuple({*Capability} - {Capability.BIDIRECTIONAL, Capability.SOURCE})
DIFFERENTIABLE = (*MINIMAL, Capability.GRADIENTS, Capability.EMBEDDINGS, Capability.OUTPUT_EMBEDDINGS)


@dataclass(frozen=True)
class BagConfig(CausalConfig):
    """A bag of words: the hidden state is the mean embedding of the tokens so far."""

    vocab: int = TOKENIZER.vocab
    width: int = 8
    declared: tuple[Capability, ...] = DIFFERENTIABLE
    has_module: bool = True
    family: str = "bag"
    summary: str = "mean of embeddings"


@dataclass(frozen=True)
class BagState:
    """Sums of embeddings (B, W) and numbers of tokens."""

    sums: Tensor
    lengths: list[int]

    def select(self, rows: Any) -> Self:
        return type(self)(self.sums[list(rows)], [self.lengths[row] for row in rows])

    @classmethod
    def join(cls, states: Any) -> Self:
        return cls(torch.cat([each.sums for each in states]), [n for each in states for n in each.lengths])

    def detach(self) -> Self:
        return replace(self, sums=self.sums.detach())

    def tensors(self) -> dict[str, Tensor]:
        return {"sums": self.sums}


class Bag(nn.Module):
    """The smallest model with gradients: the interface of a language model, and nothing else."""

    context = None

    def __init__(self, config: BagConfig) -> None:
        super().__init__()
        self.config, self.vocab, self.capabilities = config, config.vocab, frozenset(config.declared)
        if config.has_module:
            self.embedding = nn.Embedding(config.vocab, config.width)
        self.table = nn.Parameter(torch.randn(config.vocab, config.width))

    @property
    def output_weight(self) -> Tensor:
        return self.table

    def init_state(self, batch_size: int = 1) -> BagState:
        return BagState(torch.zeros(batch_size, self.config.width), [0] * batch_size)

    def forward(self, tokens: TokenBatch, state: Any = None) -> tuple[Tensor, Any]:
        before = state or self.init_state(len(tokens.ids))
        lengths = [tokens.ids.shape[1]] * len(tokens.ids) if tokens.lengths is None else tokens.lengths.tolist()
        vectors = self.embedding(tokens.ids) if self.config.has_module else self.table[tokens.ids]
        sums = before.sums[:, None] + vectors.cumsum(1)
        counts = torch.tensor(before.lengths)[:, None] + torch.arange(1, sums.shape[1] + 1)
        ends = torch.stack([sums[row, length - 1] for row, length in enumerate(lengths)])
        after = BagState(ends, [a + b for a, b in zip(before.lengths, lengths, strict=True)])
        return sums / counts[..., None], None if state is None else after

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.table.T

    def token_nll(self, tokens: TokenBatch, targets: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        hidden, after = self.forward(tokens, state)
        nats = F.cross_entropy(self.logits(hidden).transpose(1, 2), targets, reduction="none")
        return nats, after


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family(
        name="Bag",
        config=BagConfig,
        model=f"{__name__}:Bag",
        description={"bag": "a bag of words."},
        presets={"bag": BagConfig()},
        uses={"bag": "tests"},
    )
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, family))


SETTINGS: dict[str, Any] = {
    "contextual-embeddings": {"other_text": "defghij abc", "word": "abc"},
    "semantic-axis": {"words": ("a", "b")},
    "generation": {"max_tokens": 3},
}
TEXTS = {"analogy": "a - b + c", "neighbours": "a"}


@pytest.mark.parametrize(
    "declared", [MINIMAL, DIFFERENTIABLE, EVERYTHING], ids=["minimal", "differentiable", "everything"]
)
def test_every_view_works_or_refuses_in_one_sentence(declared: tuple[Capability, ...]) -> None:
    model = build(replace(BagConfig(), declared=declared), seed=0).eval()
    for view in VIEWS:
        opened, text = SimpleNamespace(model=model, tokenizer=TOKENIZER), TEXTS.get(view, TEXT)
        if view in supported_views(model):
            computed = inspect(opened, text, view, **SETTINGS.get(view, {}))
            assert all(render(computed, form) for form in ("svg", "csv", "html"))
        else:
            with pytest.raises(CannotDo, match=rf"^the view '{view}' .*; it supports [^\n]+$"):
                inspect(opened, text, view, **SETTINGS.get(view, {}))


def test_what_a_family_declares_is_shown() -> None:
    minimal = build(replace(BagConfig(), declared=MINIMAL), seed=0)
    assert supported_views(minimal) == ["tokens", "architecture", "next-token", "surprisal", "generation"]
    more = supported_views(build(BagConfig(), seed=0))
    assert {"embeddings", "neighbours", "analogy", "projection", "gradient-reach"} <= set(more)


def test_the_figure_of_an_unknown_family_has_its_modules_and_all_parameters() -> None:
    model = build(BagConfig(), seed=0)
    figure = inspect(SimpleNamespace(model=model, tokenizer=TOKENIZER), "", "architecture")
    assert isinstance(figure, Figure)
    assert figure.title == "Architecture: bag, mean of embeddings"
    assert [box.name for box in figure.boxes] == ["tokens", "embedding", "table", "probabilities"]
    assert sum(box.parameters or 0 for box in figure.boxes) == count_parameters(model) == 2 * 13 * 8
    assert "208 parameters" in str(figure.caption)


def test_a_declared_part_that_is_not_there_is_named() -> None:
    model = build(replace(BagConfig(), has_module=False), seed=0)
    for view in ("embeddings", "neighbours", "gradient-reach"):
        with pytest.raises(CannotDo, match=r"\(bag\) declares token embeddings and has no module `embedding`"):
            inspect(SimpleNamespace(model=model, tokenizer=TOKENIZER), TEXTS.get(view, TEXT), view)


def test_gradients_of_a_bag_of_words_do_not_depend_on_the_distance() -> None:
    model = build(BagConfig(), seed=0).eval()
    view = gradient_reach(model, TOKENIZER, TEXT)
    (line,) = view.lines
    # Loss t depends on its inputs through their mean: the same gradient at every distance, and a ratio of 1.
    assert max(line.y) == pytest.approx(min(line.y), rel=1e-5)
    assert "At 16 tokens back the gradient is 1 of the nearest input's (1 to 1)." in str(view.caption)
