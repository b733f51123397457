"""Architectures of encoder-decoders: T5 (Raffel et al. 2020) and Marian, whose wiring the Transformer of 2017 is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clearstory.formats.architecture import BENDS, Architecture
from clearstory.formats.keys import MOST_LAYERS, Choice, Fixed, Flag, Real, Unread, Whole
from clearstory.formats.rules import Moved, Renaming, Rule, Weights
from clearstory.formats.seq2seq_wiring import (
    Alike,
    Begin,
    DecoderLayers,
    FeedForwardWords,
    LogitScale,
    Places,
    Share,
    Unforced,
)
from clearstory.formats.wiring import AllHeads, HeadWidth
from clearstory.models.config import TransformerConfig

# What generation does unless told otherwise, and shares dropped in training only.
OF_GENERATION = Unread(
    (
        *("max_length", "num_beams", "bad_words_ids", "length_penalty", "early_stopping"),
        *("no_repeat_ngram_size", "num_hidden_layers", "output_past", "is_decoder", "prefix", "activation_dropout"),
        *("classifier_dropout", "classif_dropout", "encoder_layerdrop", "decoder_layerdrop", "init_std"),
        *("initializer_factor", "num_labels"),
    )
)


@dataclass(frozen=True)
class Row:
    """A vector that they keep as a matrix of one row, under a name without `.weight`."""

    theirs: str
    ours: str

    def pull(self, theirs: Weights, layer: int) -> dict[str, Tensor]:
        return {self.ours: theirs[self.theirs][0]} if self.theirs in theirs else {}

    def push(self, ours: Weights, layer: int) -> dict[str, Tensor]:
        return {self.theirs: ours[self.ours].unsqueeze(0)} if self.ours in ours else {}


def t5_weights(config: TransformerConfig) -> Renaming:
    """Every step is a numbered layer of its block; the first block of each stack holds the biases of distance."""
    c = config
    return Renaming(
        outside=(
            Moved("shared", "embedding"),
            Moved("lm_head", "unembedding"),
            *(
                rule
                for stack in ("encoder", "decoder")
                for rule in (
                    Moved(f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias", f"{stack}.buckets.bias"),
                    Moved(f"{stack}.final_layer_norm", f"{stack}.norm"),
                )
            ),
        ),
        inside=t5_block("encoder", c.gated, cross=False),
        layers=c.layers,
        beside=Renaming((), t5_block("decoder", c.gated, cross=True), c.decoder_layers or c.layers),
    )


def t5_block(stack: str, gated: bool, cross: bool) -> tuple[Rule, ...]:
    """One block of either stack."""
    block, ours = f"{stack}.block.{{layer}}.layer", f"{stack}.blocks.{{layer}}"
    steps = (("SelfAttention", "attention"), *((("EncDecAttention", "cross_attention"),) if cross else ()))
    letters = {"q": "query", "k": "key", "v": "value", "o": "output"}
    last = f"{block}.{len(steps)}"
    return (
        *(
            Moved(f"{block}.{number}.{theirs}.{letter}", f"{ours}.{name}.{word}")
            for number, (theirs, name) in enumerate(steps)
            for letter, word in letters.items()
        ),
        *(
            Moved(f"{block}.{number}.layer_norm", f"{ours}.{name}_norm")
            for number, (_, name) in enumerate((*steps, ("", "feed_forward")))
        ),
        Moved(f"{last}.DenseReluDense.wi_0", f"{ours}.feed_forward.gate"),
        Moved(f"{last}.DenseReluDense.{'wi_1' if gated else 'wi'}", f"{ours}.feed_forward.up"),
        Moved(f"{last}.DenseReluDense.wo", f"{ours}.feed_forward.down"),
    )


def marian_weights(config: TransformerConfig) -> Renaming:
    """BART's names; the embedding stands outside both stacks."""
    c = config
    return Renaming(
        outside=(Moved("model.shared", "embedding"), Row("final_logits_bias", "unembedding_bias")),
        inside=marian_block("encoder", cross=False),
        layers=c.layers,
        beside=Renaming((), marian_block("decoder", cross=True), c.decoder_layers or c.layers),
    )


def marian_block(stack: str, cross: bool) -> tuple[Rule, ...]:
    """One block of either stack."""
    block, ours = f"model.{stack}.layers.{{layer}}", f"{stack}.blocks.{{layer}}"
    steps = (("self_attn", "attention"), *((("encoder_attn", "cross_attention"),) if cross else ()))
    words = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
    return (
        *(Moved(f"{block}.{theirs}.{a}", f"{ours}.{name}.{b}") for theirs, name in steps for a, b in words.items()),
        *(Moved(f"{block}.{theirs}_layer_norm", f"{ours}.{name}_norm") for theirs, name in steps),
        Moved(f"{block}.fc1", f"{ours}.feed_forward.up"),
        Moved(f"{block}.fc2", f"{ours}.feed_forward.down"),
        Moved(f"{block}.final_layer_norm", f"{ours}.feed_forward_norm"),
    )


LM_HEAD = "lm_head.weight"


def untied(config: TransformerConfig, weights: Weights) -> TransformerConfig:
    """Release 5 of transformers calls every T5 tied, and unties those whose files hold two matrices that differ."""
    if not config.tied or LM_HEAD not in weights or "shared.weight" not in weights:
        return config
    return replace(config, tied=torch.equal(weights[LM_HEAD], weights["shared.weight"]))


GIVEN = {"kind": "encoder-decoder"}

ENCODER_DECODERS = (
    Architecture(
        name="T5ForConditionalGeneration",
        model_type="t5",
        keys=(
            Whole("vocab_size", "vocab"),
            Places(),
            Whole("d_model", "width"),
            Whole("num_layers", "layers", MOST_LAYERS),
            DecoderLayers("num_decoder_layers", "num_layers"),
            Whole("num_heads", "heads"),
            AllHeads("num_heads"),
            Whole("d_kv", "head_width"),
            Whole("d_ff", "hidden"),
            FeedForwardWords(),
            Real("layer_norm_epsilon", "norm_eps", 1e-12, 1.0),
            Share("dropout_rate"),
            Flag(("tie_word_embeddings",), "tied", True),
            LogitScale(),
            Begin(),
            Fixed("relative_attention_num_buckets", 32, 32),
            Fixed("relative_attention_max_distance", 128, 128),
            OF_GENERATION,
        ),
        given={
            **GIVEN,
            "norm": "rms",
            "positions": "buckets",
            "bias": False,
            "attention_scale": 1.0,
        },
        noted=frozenset({"decoder_layers"}),
        prefix="",
        renaming=t5_weights,
        # Old files of theirs carry biases that no code reads.
        idle=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
        copies=dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", LM_HEAD), "shared.weight"),
        settle=untied,
        auto="AutoModelForSeq2SeqLM",
    ),
    Architecture(
        name="MarianMTModel",
        model_type="marian",
        keys=(
            Whole("vocab_size", "vocab"),
            Whole("max_position_embeddings", "context"),
            Whole("d_model", "width"),
            Whole("encoder_layers", "layers", MOST_LAYERS),
            DecoderLayers("decoder_layers", "encoder_layers"),
            Whole("encoder_attention_heads", "heads"),
            AllHeads("encoder_attention_heads"),
            HeadWidth(None, "d_model", "encoder_attention_heads"),
            Whole("encoder_ffn_dim", "hidden"),
            Alike("decoder_attention_heads", "encoder_attention_heads", "heads"),
            Alike("decoder_ffn_dim", "encoder_ffn_dim", "hidden"),
            Alike("decoder_vocab_size", "vocab_size", "vocab"),
            Choice("activation_function", "activation", {"swish": "silu", **BENDS}),
            Share("dropout"),
            Flag(("scale_embedding",), "embed_scale", False),
            Begin(),
            Unforced(),
            Fixed("static_position_embeddings", True, True),
            Fixed("share_encoder_decoder_embeddings", True, True),
            Fixed("tie_word_embeddings", True, True),
            Fixed("normalize_before", False, False),
            Fixed("normalize_embedding", False, False),
            Fixed("add_final_layer_norm", False, False),
            Fixed("add_bias_logits", False, False),
            OF_GENERATION,
        ),
        given={
            **GIVEN,
            "norm_first": False,
            "positions": "sinusoids",
            "unembed_bias": True,
        },
        noted=frozenset({"decoder_layers", "unembed_bias"}),
        prefix="model.",
        renaming=marian_weights,
        idle=(r"model\.(encoder|decoder)\.embed_positions\.weight",),
        copies=dict.fromkeys(
            ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", LM_HEAD),
            "model.shared.weight",
        ),
        auto="AutoModelForSeq2SeqLM",
    ),
)
"""In the order in which they are tried for a config of ours."""
