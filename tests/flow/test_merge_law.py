"""The merge law: an adapter of `finetune`, merged, reopened in transformers and beside its base in peft, gives the same
logits; so does its GGUF file.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import TINY_GPT2
from torch import Tensor

import clearstory
from clearstory.errors import CannotDo
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.transformer.presets import MINILM, PHI3_MINI, QWEN3_SMALL
from clearstory.text.train_tokenizer import train_tokenizer

transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")
peft = pytest.importorskip("peft", reason="the oracle, peft, is not installed: pip install peft")

# peft asks transformers in a word that transformers has outgrown, and warns of tied embeddings, which it is given both.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*tie.*:UserWarning"),
]

TINY: dict[str, Any] = {
    "context": 64, "width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 32,
}  # fmt: skip

BACKBONES = {
    "bert": replace(MINILM, **TINY, pooler=True),
    "minilm": replace(MINILM, **TINY, pooler=False),
    "gpt2": TINY_GPT2,
    "phi3": replace(PHI3_MINI, **TINY, sliding_window=None),
    "qwen3": replace(QWEN3_SMALL, **TINY),
}
WORDS = ("a", "film", "song", "book", "good", "bad", "fine", "poor", "Ada", "Rome")
TRAINING = {"threads": 1, "precision": "fp32", "learning_rate": 0.05, "batch_size": 8, "device": "cpu"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of each backbone, and data of each task; no test changes them."""
    home, draw = tmp_path_factory.mktemp("bases"), random.Random(0)
    sentences = [draw.choices(WORDS, k=6) for _ in range(60)]
    rows = [f"{' '.join(words)}\t{'yes' if 'good' in words else 'no'}" for words in sentences]
    (home / "classify.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    tagged = ["".join(f"{w} {'NAME' if w[0].isupper() else 'WORD'}\n" for w in words) for words in sentences]
    (home / "tag.conll").write_text("\n".join(tagged))
    (home / "lm.txt").write_text("\n".join(" ".join(words) for words in sentences * 4))
    for name, config in BACKBONES.items():
        tokenizer = train_tokenizer("wordpiece:60" if name in ("bert", "minilm") else "bpe:300", list(WORDS))
        model = build(replace(config, vocab=tokenizer.vocab), seed=3)
        save_model(home / name, model, tokenizer, ModelCard(name=name, family=config.family, parameters=0))
    return home


CASES: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "pooler": ("bert", "classify", ("query", "value"), ()),
    "pooler that the base has not": ("minilm", "classify", ("query", "up"), ("embedding",)),
    "fused query, tied": ("gpt2", "classify", ("query", "down"), ()),
    "words": ("bert", "tag", ("key", "output"), ("embedding", "embedding_norm")),
    "words, fused": ("phi3", "tag", ("query", "gate"), ("embedding",)),
    "text": ("gpt2", "lm", ("query",), ()),
    "text, trained embeddings, tied": ("gpt2", "lm", ("query", "value"), ("embedding",)),
    "text, trained embeddings, tied, qwen3": ("qwen3", "lm", ("query",), ("embedding",)),
    "text, fused, untied": ("phi3", "lm", ("key", "up"), ("embedding", "unembedding")),
}
QUICK = ("pooler that the base has not", "words, fused", "text, trained embeddings, tied")
AUTO = {
    "classify": "AutoModelForSequenceClassification",
    "tag": "AutoModelForTokenClassification",
    "lm": "AutoModelForCausalLM",
}


@torch.no_grad()
def logits(model: Any, ids: Tensor) -> Tensor:
    """Logits of a model here or of one of transformers."""
    if hasattr(model, "class_logits"):
        found: Tensor = model.class_logits(TokenBatch(ids))
    elif hasattr(model, "token_nll"):
        found = model.logits(model.forward(TokenBatch(ids))[0])
    else:
        found = model(ids).logits
    return found


def finetuned(home: Path, case: str, out: Path) -> tuple[Path, Path, str]:
    backbone, task, targets, saved = CASES[case]
    data = next(home.glob(f"{task}.*"))
    clearstory.finetune(
        home / backbone, data, task=task, out=out, steps=3,  # type: ignore[arg-type]
        lora={"rank": 2, "targets": targets, "modules_to_save": saved},
        training={**TRAINING, **({} if task == "lm" else {"num_train_epochs": 1.0})},  # type: ignore[typeddict-item]
    )  # fmt: skip
    return home / backbone, out / "model", task


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in CASES])
def test_an_adapter_its_merged_model_and_both_in_other_programs_agree(case: str, home: Path, tmp_path: Path) -> None:
    base, adapter, task = finetuned(home, case, tmp_path / "run")
    opened = open_model(adapter).model
    ids = torch.randint(0, opened.config.vocab - 5, (3, 9), generator=torch.Generator().manual_seed(0)) + 5
    expected = logits(opened, ids)

    def same(model: Any, tolerance: float = 1e-5) -> None:
        torch.testing.assert_close(logits(model, ids), expected, rtol=0, atol=tolerance)

    clearstory.convert(tmp_path / "run", tmp_path / "merged")
    same(open_model(tmp_path / "merged").model)
    auto = getattr(transformers, AUTO[task])
    same(auto.from_pretrained(tmp_path / "merged").eval())
    labels = {} if task == "lm" else {"num_labels": len(opened.config.labels)}
    unadapted = auto.from_pretrained(base, **labels).eval()
    assert (logits(unadapted, ids) - expected).abs().max() > 1e-3, "the adapter does nothing"
    same(peft.PeftModel.from_pretrained(unadapted, adapter).eval())
    if task == "lm":
        clearstory.convert(tmp_path / "run", tmp_path / "merged.gguf")
        same(open_model(tmp_path / "merged.gguf").model)
    else:
        with pytest.raises(CannotDo, match="GGUF does not support classification heads"):
            clearstory.convert(tmp_path / "run", tmp_path / "merged.gguf")
        assert not (tmp_path / "merged.gguf").exists()


def test_seeds_of_language_modelling_are_summarized(home: Path, tmp_path: Path) -> None:
    training = {**TRAINING, "batch_size": 4}
    result = clearstory.finetune(
        home / "gpt2", home / "lm.txt", task="lm", seeds=2, steps=1, out=tmp_path / "runs", training=training,  # type: ignore[arg-type]
    )  # fmt: skip
    bits = [each.bits_per_byte for each in result.runs]
    assert result.metric == "bits_per_byte"
    assert result.metrics["bits_per_byte"] == pytest.approx(sum(filter(None, bits)) / 2)
    assert result.folder == result.runs[bits.index(min(filter(None, bits)))].folder
    assert (tmp_path / "runs" / "summary.json").is_file()
