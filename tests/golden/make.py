"""Golden folders: one tiny model of every class that is written here, with what it answered when it was written.

Whoever saved a model must be able to open it for ever. `python tests/golden/make.py` writes those that are not there
yet and leaves all others as they are: they are what was written then, not what is written now.
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
from clearstory.models.base import TokenBatch, reads_source
from clearstory.models.build import build
from clearstory.models.hmm.config import HMMConfig
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.presets import BERT_TINY, MARIAN, T5_SMALL
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
BERT = replace(BERT_TINY, **SHAPE)
STACK = replace(BERT, mlm_transform=False, unembed_bias=False)
LABELS = {"labels": ("bad", "good", "neither")}

MODELS: dict[str, tuple[Any, str]] = {
    "GPT2LMHeadModel": (GPT2, "characters"),
    "LlamaForCausalLM": (replace(LLAMA, rope_factor=8.0, rope_original_context=16), "characters"),
    "MistralForCausalLM": (replace(LLAMA, sliding_window=6, head_dim=6), "characters"),
    "Phi3ForCausalLM": (replace(LLAMA, sliding_window=6), "characters"),
    "Qwen3ForCausalLM": (replace(LLAMA, qk_norm=True), "characters"),
    "BertForPreTraining": (BERT, "wordpiece:40"),
    "BertForMaskedLM": (replace(BERT, pooler=False), "wordpiece:40"),
    "BertModel": (STACK, "wordpiece:40"),
    "BertForSequenceClassification": (replace(STACK, **LABELS), "wordpiece:40"),
    "BertForTokenClassification": (replace(STACK, **LABELS, pooler=False, label_level="token"), "wordpiece:40"),
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
    "model.gguf": (replace(LLAMA, layers=1), "bpe:270"),
}
"""A folder's name, or a file's, with the model and the tokenizer of what is in it. A class has the name of its own."""

SHARDED = {"LlamaForCausalLM": 4000}
"""Bytes of the largest file, where there are several."""


def made(config: Any, tokenizer: Tokenizer) -> Any:
    """A model none of whose numbers is what it was born with."""
    model: Any = build(replace(config, vocab=tokenizer.vocab), seed=1).eval()
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
def answers(opened: OpenedModel) -> dict[str, Tensor]:
    """What a model makes of TEXT: its ids, and all that can be asked of it."""
    model, tokenizer = opened.model, opened.tokenizer
    assert tokenizer is not None
    ids = tokenizer.encode(TEXT)[: 16 if tokenizer.vocab < 100 else 5]  # logits of a large vocabulary take room
    rows = torch.tensor([ids, ids[::-1]])
    if not isinstance(model, Encoder):
        return {"ids": rows, "logits": opened.logits(rows, [ids, ids[3:9]] if reads_source(model) else None)}
    segments = torch.arange(rows.shape[1]).ge(5).long().expand(rows.shape)
    hidden = model.encode(TokenBatch(rows, torch.tensor([len(ids), 7])), segments)
    found = {"ids": rows, "first": hidden[0], "second": hidden[1, :7]}
    if model.mlm_transform is not None:
        found["words"] = model.logits(hidden[0])
    if model.pooler is not None:
        found["pooled"] = model.pool(hidden)
    if model.nsp_head is not None:
        found["follows"] = model.nsp_logits(hidden)
    if model.classifier is not None:
        found["labels"] = (
            model.class_logits(hidden) if model.config.label_level == "text" else model.class_logits(hidden)[0]
        )
    return {name: tensor.contiguous() for name, tensor in found.items()}


def write(name: str, home: Path = HERE) -> Path:
    """One of MODELS, and beside it what it answers when it is read back."""
    config, kind = MODELS[name]
    tokenizer = train_tokenizer(kind, [TEXT] * 3)
    path, model = home / name, made(config, tokenizer)
    if path.suffix == ".gguf":
        write_gguf(path, model, tokenizer, "golden")
    else:
        save_model(path, model, tokenizer, ModelCard(name=name), shard_bytes=SHARDED.get(name, 2**30))
    save_file(answers(open_model(path)), expected(path))
    return path


def expected(path: Path) -> Path:
    """Where the answers of a model lie."""
    return path.with_name(f"{path.name}.expected.safetensors")


def main(home: Path = HERE, say: Callable[[str], Any] = print) -> None:
    """Write what is not there."""
    for name in MODELS:
        there = (home / name).exists() or expected(home / name).exists()
        say(f"{name}: {'is there and stays as it is' if there else write(name, home)}")


if __name__ == "__main__":
    sys.exit(main())
