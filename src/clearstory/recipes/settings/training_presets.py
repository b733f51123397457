"""Training settings of presets: learning rates, optimizers and schedules. Imports no torch."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from clearstory.models.recurrent.seq2seq_config import RECURRENT_SEQ2SEQ_PRESETS
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
    # Tuned on presidents' addresses: 1.85 bits per character after 300 steps of 32 × 64, where AdamW at its best rate
    # reached 4.1 (tied) and 3.5 (not tied).
    "training.muon_learning_rate": 0.08,
    "training.epsilon": 1e-8,
    "training.gradient_clip": 1.0,
    "training.batch_size": 32,
    "training.context": 64,
}

RECURRENT_SEQ2SEQ: dict[str, Any] = {
    **CLEAR,
    # Multi30k de-en, after 58 of 90 CPU seconds, batches of 64: `luong` with AdamW at 0.003 had 4.66 nats per target
    # token (0.34 epochs), with Muon at 0.02 4.37 (0.24 epochs). `lstm-seq2seq` learns at 0.04 in batches of 128, too.
    "training.muon_learning_rate": 0.03,
    "training.learning_rate": 0.01,
    "training.epsilon": 1e-8,
    "training.gradient_clip": 1.0,
    "training.label_smoothing": 0.1,
    "training.batch_size": 128,
}

ENCODER: dict[str, Any] = {
    **CLEAR,
    # Tuned on WikiText-2 by articles: bert-mini after 300 steps of 32 × 128, nats per masked token of held-out articles
    # (unigram frequencies: 6.6). Muon 0.02 with AdamW 0.002: 6.01; Muon 0.01: 6.37; Muon 0.02 with AdamW 0.01: 6.53;
    # `clear`'s 0.04 and 0.02: 6.73; AdamW alone at 0.001: 6.61. Tied embeddings, initialised small, need small steps.
    "training.muon_learning_rate": 0.02,
    "training.learning_rate": 0.002,
    "training.warmup_steps": 60,
    "training.initialization": "normal",
    "training.batch_size": 32,
    "training.context": 128,
}

# Vaswani et al. 2017, sections 5.3 and 5.4; `scale_learning_rates` sets the rate. Their batches: 25,000 tokens a side.
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
    # At 0.08 gradients explode after some hundred steps; see docs/recurrent.md.
    "rnn": {**RECURRENT, "training.muon_learning_rate": 0.04},
    "gru": RECURRENT,
    "lstm": RECURRENT,
    **dict.fromkeys(RECURRENT_SEQ2SEQ_PRESETS, RECURRENT_SEQ2SEQ),
    # Merity et al. 2018, section 5; averaging starts after a fraction of the steps, not when validation stalls.
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
    "mix": CLEAR,
    # Tuned on tatoeba-en-de, nats per target token after 45 CPU seconds: 4.33; half the learning rate 4.41, batches of
    # 64 pairs 4.45, with half of Muon's rate 4.6; twice all of them 4.7, with growing gradients, since there is no
    # QK norm. AdamW at 3e-3 reached 5.6.
    "clear-translate": {
        **CLEAR,
        "training.muon_learning_rate": 0.0175,
        "training.learning_rate": 0.0175,
        "training.batch_size": 128,
    },
    **dict.fromkeys(("transformer-base", "transformer-big", "marian"), VASWANI),
    "recall": {**CLEAR, "training.recall_learning_rate": 0.5, "training.batch_size": 8},
    # For model.learn gradient; Baum-Welch ignores them. Logits of probabilities need large steps.
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
"""Training settings of each preset, under dotted keys of TrainRecipe."""

FINE_TUNING: dict[str, Any] = {"training.learning_rate": 2**-10, "training.warmup_steps": 20}
"""Training settings for fine-tuning all weights; models wider than FINE_TUNING_WIDTH get a lower rate. 2**-10 is a
value that nobody types, so that an explicitly set rate is recognised.

`clear` with 0.9 M parameters after 40 CPU seconds improved in 25 more on the King James Bible from 3.48 bits per byte
to 3.33, 2.90, 2.39 and 2.18 at rates of 1e-4, 3e-4, 1e-3 and 3e-3; on Python's documentation, where it had 2.32, it
then had 2.51, 2.80 and 3.23 after the last three.
"""

FINE_TUNING_WIDTH = 192
"""The largest width for the full rate of FINE_TUNING. SmolLM2-135M, 576 wide, reached 1.60 bits per byte after 12 steps
of 4 × 128 tokens of Shakespeare at 3e-4, and 1.71 at 1e-3.
"""

LORA_FINE_TUNING: dict[str, Any] = {
    "training.learning_rate": 3e-3,
    "training.warmup_steps": 20,
    "training.weight_decay": 0.0,
}
"""Training settings for LoRA. In the same experiment queries and values of rank 8 reached 2.80, 2.60 and 2.41 bits per
byte at 1e-3, 3e-3 and 1e-2.
"""

RECALL_BATCH_SIZE_FOR_SUBWORDS = 16
"""Sequences in a batch of `recall` for subwords. Presidents' addresses, 40 CPU seconds: 1.566 bits per byte where
batches of 8 had 1.598 and `clear` 1.625.
"""


def preset_training_settings(preset: str, tokenizer: str | None) -> dict[str, Any]:
    """The training settings of a preset with a tokenizer, under dotted keys of TrainRecipe; empty for the defaults.

    >>> [preset_training_settings("recall", kind)["training.batch_size"] for kind in (None, "bytes", "bpe:4096")]
    [8, 8, 16]
    """
    settings = PRESET_TRAINING_SETTINGS.get(preset, {})
    if preset != "recall" or tokenizer is None or tokenizer.partition(":")[0] in ("characters", "bytes"):
        return settings
    return {**settings, "training.batch_size": RECALL_BATCH_SIZE_FOR_SUBWORDS}


BASE_WIDTHS = {
    **dict.fromkeys(("clear", "recall", "clear-translate"), ("width", 192)),
    "rnn": ("hidden_size", 512),
}
"""The config field with the width of a preset's model, and the largest width for its full learning rates."""


def scale_learning_rates(preset: str | None, config: Any, settings: TrainingSettings) -> TrainingSettings:
    """The training settings with learning rates for the width of a model; `preset` is None for fine-tuning.

    Default rates are divided by the width relative to the base width (Yang et al. 2022, table 3); the rate of the noam
    schedule follows Vaswani et al. 2017, eq. 3. Rates that were set explicitly are kept.
    """
    if settings.schedule == "noam" and settings.learning_rate == VASWANI["training.learning_rate"]:
        return replace(settings, learning_rate=(config.width * max(1, settings.warmup_steps)) ** -0.5)
    if preset is None:
        factor = FINE_TUNING_WIDTH / getattr(config, "width", FINE_TUNING_WIDTH)
        return scale_default_rates(settings, FINE_TUNING, factor)
    if preset not in BASE_WIDTHS:
        return settings
    field, base_width = BASE_WIDTHS[preset]
    return scale_default_rates(settings, PRESET_TRAINING_SETTINGS[preset], base_width / getattr(config, field))


def scale_default_rates(settings: TrainingSettings, defaults: dict[str, Any], factor: float) -> TrainingSettings:
    """The settings with those learning rates that have their default multiplied by `factor`, at most 1."""
    rates = {
        name: getattr(settings, name) * min(1.0, factor)
        for name in ("learning_rate", "muon_learning_rate")
        if getattr(settings, name) == defaults.get(f"training.{name}")
    }
    return replace(settings, **rates)


def expert_settings(mixture: str, name: str, config: Any, settings: TrainingSettings) -> TrainingSettings:
    """The training settings of one expert of a mixture: those of its own preset, except for those that were set."""
    defaults = TrainingSettings()

    def of_preset(preset: str, field: str) -> Any:
        return PRESET_TRAINING_SETTINGS.get(preset, {}).get(f"training.{field}", getattr(defaults, field))

    own = {each.name: of_preset(name, each.name) for each in fields(settings)
           if getattr(settings, each.name) == of_preset(mixture, each.name)}  # fmt: skip
    return scale_learning_rates(name, config, replace(settings, **own))
