"""Golden models: one tiny model in every format that is written, with its outputs at the time of writing.

Saved models must open with the same outputs in every later version. `python tests/golden/make.py` writes models that
are missing and leaves all others unchanged. To write one again after an intended change of the format, delete its
folder (or file) and its .expected.safetensors first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from clearstory.formats.folders import OpenedModel, open_model, save_model
from clearstory.formats.gguf.write import write_gguf
from clearstory.formats.model_card import ModelCard
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.head_config import ClassifierConfig, replace_fields
from clearstory.models.hmm.config import HMMConfig
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.presets import BERT_TINY, GEMMA3_1B, MARIAN, T5_SMALL
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer

HERE = Path(__file__).parent

TEXT = "The cat sat on a mat; the dog, it's said, did not."

SHAPE: dict[str, Any] = {
    "vocab": 2, "context": 24, "width": 8, "layers": 2, "heads": 2, "kv_heads": 2,
    "head_dim": 4, "intermediate_size": 12,
}  # fmt: skip

GPT2 = TransformerConfig(**SHAPE)
LLAMA = replace(
    GPT2, kv_heads=1, norm="rms", positions="rotary", gated=True, bias=False, activation="silu", tie_embeddings=False
)
GEMMA = replace(GEMMA3_1B, **SHAPE, sliding_window=6, global_interval=2, rope_factor=8.0)
BERT = replace(BERT_TINY, **SHAPE)
STACK = replace(BERT, mlm_transform=False, unembed_bias=False)
HEADLESS = replace(STACK, pooler=False)
LABELS = ("bad", "good", "neither")

MODELS: dict[str, tuple[Any, str]] = {
    "GPT2LMHeadModel": (GPT2, "characters"),
    "LlamaForCausalLM": (replace(LLAMA, rope_factor=8.0, rope_original_context=16), "characters"),
    "MistralForCausalLM": (replace(LLAMA, sliding_window=6, head_dim=6), "characters"),
    "Phi3ForCausalLM": (replace(LLAMA, sliding_window=6), "characters"),
    "Qwen3ForCausalLM": (replace(LLAMA, qk_norm=True), "characters"),
    "Gemma3ForCausalLM": (GEMMA, "characters"),
    "BertForPreTraining": (BERT, "wordpiece:40"),
    "BertForMaskedLM": (replace(BERT, pooler=False), "wordpiece:40"),
    "BertModel": (STACK, "wordpiece:40"),
    "BertForSequenceClassification": (
        ClassifierConfig(backbone=HEADLESS, labels=LABELS, pooling="pooler"),
        "wordpiece:40",
    ),
    "BertForTokenClassification": (ClassifierConfig(backbone=HEADLESS, labels=LABELS), "wordpiece:40"),
    "T5ForConditionalGeneration": (replace(T5_SMALL, **SHAPE, decoder_start_token_id=1), "characters"),
    "MarianMTModel": (replace(MARIAN, **SHAPE, decoder_start_token_id=1, decoder_layers=1), "characters"),
    "recall": (replace(LLAMA, recall=(2, 3), recall_rows=16), "characters"),
    "rnn": (RecurrentConfig(vocab=1, width=6, hidden_size=8, layers=2, cell="rnn"), "characters"),
    "gru": (RecurrentConfig(vocab=1, width=6, hidden_size=8, layers=2, cell="gru"), "characters"),
    "lstm": (
        RecurrentConfig(vocab=1, width=6, hidden_size=8, layers=2, cell="lstm", tie_embeddings=False),
        "characters",
    ),
    "hmm": (HMMConfig(vocab=1, states=6), "words"),
    "ngram": (NGramConfig(vocab=1, order=3), "characters"),
    **{
        f"{stem}For{kind}Classification": (
            ClassifierConfig(backbone=replace(base, layers=1), labels=LABELS, pooling=pooling),
            "characters",
        )
        for stem, base in {
            "GPT2": GPT2,
            "Llama": LLAMA,
            "Mistral": replace(LLAMA, sliding_window=6, head_dim=6),
            "Phi3": replace(LLAMA, sliding_window=6),
            "Qwen3": replace(LLAMA, qk_norm=True),
        }.items()
        for kind, pooling in (("Sequence", "last"), ("Token", None))
    },
    "Gemma3TextForSequenceClassification": (
        ClassifierConfig(backbone=replace(GEMMA, layers=1, global_interval=6), labels=LABELS, pooling="last"),
        "characters",
    ),
    "classifier": (
        ClassifierConfig(
            backbone=RecurrentConfig(vocab=1, width=6, hidden_size=8, layers=1, cell="gru", tie_embeddings=False),
            labels=LABELS,
            pooling="mean",
            problem_type="multi_label_classification",
        ),
        "characters",
    ),
    "model.gguf": (replace(LLAMA, layers=1), "bpe:270"),
}
"""From a folder or file name to its config and kind of tokenizer. Classes of transformers have their own name."""

SHARDED = {"LlamaForCausalLM": 4000}
"""Maximum bytes of a file, for models in several files."""


def build_model(config: Any, tokenizer: Tokenizer) -> Any:
    """A model whose weights all differ from their initial values."""
    model: Any = build(replace_fields(config, vocab=tokenizer.vocab), seed=1).eval()
    if isinstance(config, NGramConfig):
        ids = np.array(tokenizer.encode(TEXT) * 3, np.uint16)
        lengths = np.ones(tokenizer.vocab)
        list(model.fit(SimpleNamespace(ids=ids, starts=np.array([0, len(ids)]), byte_lengths=lengths)))
        return model
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model


@torch.no_grad()
def model_outputs(opened: OpenedModel) -> dict[str, Tensor]:
    """The ids of TEXT and the outputs of the model and all its heads."""
    model, tokenizer = opened.model, opened.tokenizer
    assert tokenizer is not None
    ids = tokenizer.encode(TEXT)[: 16 if tokenizer.vocab < 100 else 5]  # to keep files small
    batch = torch.tensor([ids, ids[::-1]])
    tokens = TokenBatch(batch, torch.tensor([len(ids), 7]))
    if has_capability(model, Capability.CLASSIFIER) and not has_capability(model, Capability.BIDIRECTIONAL):
        class_logits = model.class_logits(tokens)
        return {"ids": batch, "class_logits": class_logits if model.config.pooling else class_logits[0]}
    if not has_capability(model, Capability.BIDIRECTIONAL):
        has_source = has_capability(model, Capability.SOURCE)
        return {"ids": batch, "logits": opened.logits(batch, [ids, ids[3:9]] if has_source else None)}
    token_types = torch.arange(batch.shape[1]).ge(5).long().expand(batch.shape)
    hidden = model.encode(tokens, token_types)
    outputs = {"ids": batch, "hidden_0": hidden[0], "hidden_1": hidden[1, :7]}
    if has_capability(model, Capability.MLM_HEAD):
        outputs["mlm_logits"] = model.logits(hidden[0])
    if has_capability(model, Capability.POOLER):
        outputs["pooled"] = model.pool(hidden)
    if has_capability(model, Capability.NSP_HEAD):
        outputs["nsp_logits"] = model.nsp_logits(hidden)
    if has_capability(model, Capability.CLASSIFIER):
        class_logits = model.class_logits(tokens, token_types)
        outputs["class_logits"] = class_logits if model.config.label_level == "text" else class_logits[0]
    return {name: tensor.contiguous() for name, tensor in outputs.items()}


def write_golden(name: str, home: Path = HERE) -> Path:
    """Write one of MODELS, and beside it the outputs of the model read back."""
    config, kind = MODELS[name]
    tokenizer = train_tokenizer(kind, [TEXT] * 3)
    path, model = home / name, build_model(config, tokenizer)
    if path.suffix == ".gguf":
        write_gguf(path, model, tokenizer, "golden")
    else:
        save_model(path, model, tokenizer, ModelCard(name=name), shard_bytes=SHARDED.get(name, 2**30))
    save_file(model_outputs(open_model(path)), expected_file(path))
    return path


def expected_file(path: Path) -> Path:
    """The file with the outputs of a model."""
    return path.with_name(f"{path.name}.expected.safetensors")


def main(home: Path = HERE, say: Callable[[str], Any] = print) -> None:
    """Write the models that are missing."""
    for name in MODELS:
        there = (home / name).exists() or expected_file(home / name).exists()
        say(f"{name}: {'exists, unchanged' if there else write_golden(name, home)}")


if __name__ == "__main__":
    sys.exit(main())
