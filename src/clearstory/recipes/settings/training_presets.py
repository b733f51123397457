"""Rates: what each preset brings along for training. Without torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clearstory.training.settings import TrainingSettings

CLEAR: dict[str, Any] = {
    "training.optimizer": "muon",
    "training.muon_learning_rate": 0.04,
    "training.learning_rate": 0.02,
    "training.beta1": 0.8,
    "training.beta2": 0.95,
    "training.epsilon": 1e-10,
    "training.weight_decay": 0.0,
    "training.gradient_clip": 0.0,
    "training.schedule": "linear",
    "training.final_learning_rate": 0.02,
    "training.warmup_steps": 20,
    "training.initialization": "zero",
}

RECURRENT: dict[str, Any] = {
    **CLEAR,
    # Chosen on presidents' addresses: 1.85 bits per character after 300 steps of 32 × 64, where AdamW at its best rate
    # was still at 4.1 (tied) and 3.5 (not tied).
    "training.muon_learning_rate": 0.08,
    "training.epsilon": 1e-8,
    "training.gradient_clip": 1.0,
    "training.batch_size": 32,
    "training.context": 64,
}

ENCODER: dict[str, Any] = {
    **CLEAR,
    # Chosen on WikiText-2 by articles: bert-mini after 300 steps of 32 × 128, nats per masked token of others of them,
    # where frequencies alone give 6.6. Muon 0.02 with AdamW 0.002: 6.01; Muon 0.01: 6.37; AdamW 0.01 beside Muon 0.02:
    # 6.53; `clear`'s 0.04 and 0.02: 6.73; AdamW alone at 0.001: 6.61. Tied embeddings, born small, want small steps.
    "training.muon_learning_rate": 0.02,
    "training.learning_rate": 0.002,
    "training.warmup_steps": 60,
    "training.initialization": "normal",
    "training.batch_size": 32,
    "training.context": 128,
}

# Vaswani et al. 2017, section 5.3 and 5.4; of the rate, `scale_learning_rates` knows more. Their batches are 25,000 tokens a side.
VASWANI: dict[str, Any] = {
    "training.learning_rate": (512 * 4000) ** -0.5,
    "training.beta1": 0.9,
    "training.beta2": 0.98,
    "training.epsilon": 1e-9,
    "training.weight_decay": 0.0,
    "training.gradient_clip": 0.0,
    "training.schedule": "noam",
    "training.warmup_steps": 4000,
    "training.label_smoothing": 0.1,
    "training.batch_size": 64,
}

PRESET_TRAINING_SETTINGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert-tiny", "bert-mini", "bert-small", "bert-base", "bert-large", "minilm"), ENCODER),
    # At 0.08 gradients burst after some hundred steps; docs/recurrent.md has the figures.
    "rnn": {**RECURRENT, "training.muon_learning_rate": 0.04},
    "gru": RECURRENT,
    "lstm": RECURRENT,
    # Merity et al. 2018, section 5; averaging begins after a share of the steps here, not when looks stop improving.
    "awd-lstm": {
        "training.optimizer": "sgd",
        "training.learning_rate": 30.0,
        "training.weight_decay": 1.2e-6,
        "training.schedule": "constant",
        "training.warmup_steps": 0,
        "training.gradient_clip": 0.25,
        "training.batch_size": 80,
        "training.context": 70,
        "training.weight_average": 0.5,
    },
    # nanoGPT's config/train_shakespeare_char.py as its README runs it on a CPU.
    "nanogpt-char": {
        "steps": 2000,
        "training.batch_size": 12,
        "training.learning_rate": 1e-3,
        "training.beta2": 0.99,
        "training.final_learning_rate": 0.1,
        "training.warmup_steps": 100,
    },
    "clear": CLEAR,
    # Chosen on tatoeba-en-de, nats per target token after 45 processor seconds: 4.33; half the learning rate 4.41, with
    # batches of 64 pairs 4.45, with half of muon's rate 4.6; twice all of them 4.7, and rising gradients, since no norm
    # stands before the scores. AdamW at 3e-3 was at 5.6.
    "clear-translate": {
        **CLEAR,
        "training.muon_learning_rate": 0.0175,
        "training.learning_rate": 0.0175,
        "training.batch_size": 128,
    },
    **dict.fromkeys(("transformer-base", "transformer-big", "marian"), VASWANI),
    "recall": {**CLEAR, "training.recall_learning_rate": 0.5, "training.batch_size": 8},
    # Of a gradient; Baum-Welch takes no notice. Logits of chances want long steps.
    "hmm": {
        "training.learning_rate": 0.2,
        "training.beta2": 0.99,
        "training.weight_decay": 0.0,
        "training.gradient_clip": 0.0,
        "training.schedule": "linear",
        "training.final_learning_rate": 0.02,
        "training.warmup_steps": 0,
        "training.precision": "fp32",
    },
}
"""What a preset brings along for training, under the keys of TrainRecipe."""

FINE_TUNING: dict[str, Any] = {"training.learning_rate": 2**-10, "training.warmup_steps": 20}
"""What a model that is there brings along for going on with all of its weights; for one wider than FINE_TUNING_WIDTH, less. As
nobody types this rate, one that was set by hand is known. `clear` of 0.9 M parameters, 40 processor seconds old, came
in 25 more of the King James Bible from 3.48 bits per byte to 3.33, 2.90, 2.39 and 2.18 at 1e-4, 3e-4, 1e-3 and 3e-3;
with Python's documentation, which it knew at 2.32, it was at 2.51, 2.80 and 3.23 after the last three.
"""

FINE_TUNING_WIDTH = 192
"""The widest model that FINE_TUNING is meant for. SmolLM2-135M, 576 wide, was at 1.60 bits per byte after 12
steps of 4 × 128 tokens of Shakespeare with 3e-4, and at 1.71 with 1e-3.
"""

LORA_FINE_TUNING: dict[str, Any] = {
    "training.learning_rate": 3e-3,
    "training.warmup_steps": 20,
    "training.weight_decay": 0.0,
}
"""And for learning beside them: there, queries and values of rank 8 came to 2.80, 2.60 and 2.41 bits per byte at 1e-3,
3e-3 and 1e-2.
"""

BASE_WIDTHS = {"clear": ("width", 192), "clear-translate": ("width", 192), "rnn": ("hidden", 512)}
"""The field that says how wide a preset's model is, and the widest that its rates are meant for."""


def scale_learning_rates(name: str | None, config: Any, settings: TrainingSettings) -> TrainingSettings:
    """The rates of a preset for a model of this config, or without a name, those of a model that is there already.

    Wider ones have less in proportion (Yang et al. 2022, table 3); that of noam is as Vaswani et al. 2017, eq. 3, have
    it. A rate that was set by hand stays.
    """
    if settings.schedule == "noam" and settings.learning_rate == VASWANI["training.learning_rate"]:
        return replace(settings, learning_rate=(config.width * max(1, settings.warmup_steps)) ** -0.5)
    if name is None:
        return scale_default_rates(settings, FINE_TUNING, FINE_TUNING_WIDTH / getattr(config, "width", FINE_TUNING_WIDTH))
    if name not in BASE_WIDTHS:
        return settings
    field, widest = BASE_WIDTHS[name]
    return scale_default_rates(settings, PRESET_TRAINING_SETTINGS[name], widest / getattr(config, field))


def scale_default_rates(settings: TrainingSettings, usual: dict[str, Any], share: float) -> TrainingSettings:
    """The settings with this share of the usual rates, or with all of them where it is more."""
    rates = {
        rate: getattr(settings, rate) * min(1.0, share)
        for rate in ("learning_rate", "muon_learning_rate")
        if getattr(settings, rate) == usual.get(f"training.{rate}")
    }
    return replace(settings, **rates)
