"""Learning rates decay from the head down to the embeddings; weight decay spares biases and norms."""

from __future__ import annotations

import pytest
from tests.tiny import TINY_GPT2

from clearstory.models.build import build
from clearstory.models.heads import SequenceClassifier
from clearstory.training.optimizers import OptimizerSet, lr_factor
from clearstory.training.settings import TrainingSettings


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_each_layer_has_its_rate(optimizer: str) -> None:
    model = SequenceClassifier(build(TINY_GPT2, seed=1), ("a", "b"))
    settings = TrainingSettings(
        optimizer=optimizer,  # type: ignore[arg-type]
        learning_rate=0.5,
        muon_learning_rate=0.5,
        layer_decay=0.5,
        weight_decay=0.25,
    )
    optimizers = OptimizerSet(model, settings)
    optimizers.step(1.0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    rates, decays = {}, {}
    for each, _, _ in optimizers.optimizers:
        for group in each.groups:
            for parameter in group["params"]:
                rates[names[parameter]], decays[names[parameter]] = group["lr"], group["weight_decay"]
    assert rates.keys() == set(names.values())  # each has one optimizer
    assert rates["classifier.weight"] == 0.5
    assert rates["backbone.blocks.1.attention.query.weight"] == 0.25
    assert rates["backbone.blocks.0.feed_forward.up.weight"] == 0.125
    assert rates["backbone.embedding.weight"] == rates["backbone.position_embedding.weight"] == 0.0625
    assert all(decay == (0.25 if parameter.ndim >= 2 else 0.0) for parameter, name in names.items()
               for decay in [decays[name]])  # fmt: skip


def test_warm_up_is_a_share_of_the_steps_however_many() -> None:
    settings = TrainingSettings(warmup_ratio=0.1, schedule="constant")
    for steps in (40, 400):
        warmup = steps // 10
        assert lr_factor(warmup - 2, steps, settings) < 1 == lr_factor(warmup - 1, steps, settings)
