"""Classification heads open here and in transformers and peft with the same logits. All parameters are randomized."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_transformers import LLAMA, TINY, shake, worst
from torch import Tensor

from clearstory.errors import BadInput, CannotDo
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.lora.adapters import read_adapter, save_adapter
from clearstory.formats.model_card import ModelCard
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.heads import ClassificationHead, SequenceClassifier, TokenClassifier
from clearstory.models.lora import adapt, lora_layers, merge_lora
from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.models.transformer.presets import BERT_TINY, MINILM
from clearstory.recipes.conversion.check_transformers import check_portability

transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")

# peft asks transformers in a word that transformers has outgrown.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SMALL: dict[str, Any] = {
    "vocab": 61, "context": 64, "width": 24, "layers": 2, "heads": 4, "kv_heads": 4, "head_dim": 6,
    "intermediate_size": 40,
}  # fmt: skip
SHALLOW = {"layers": 2}

BACKBONES: dict[str, Any] = {
    "Bert": replace(BERT_TINY, **SMALL),
    "GPT2": replace(TINY, **SHALLOW, tie_embeddings=False),
    "Llama": replace(LLAMA, **SHALLOW, kv_heads=2),
    "Mistral": replace(LLAMA, **SHALLOW, sliding_window=6, head_dim=8),
    "Phi3": replace(LLAMA, **SHALLOW, sliding_window=7, tie_embeddings=True),
    "Qwen3": replace(LLAMA, **SHALLOW, qk_norm=True),
}

LABELS = ("joy", "anger", "none")
PAD = 60
LENGTHS = torch.tensor([12, 7, 1])
BATCH = TokenBatch(torch.randint(0, PAD, (3, 12), generator=torch.Generator().manual_seed(2)), LENGTHS)
REAL = torch.arange(12) < LENGTHS[:, None]


def classifier(backbone: str, kind: str) -> Any:
    """A classifier of a backbone that has all heads of a language model."""
    whole: Any = build(BACKBONES[backbone], seed=0).eval()
    make = SequenceClassifier if kind == "Sequence" else TokenClassifier
    model = make(whole, LABELS)
    shake(model, 0.2)
    return model


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Logits of every text, or of every token that is no padding."""
    out: Tensor
    if isinstance(model, ClassificationHead):
        out = model.class_logits(BATCH)
    else:
        model.config.pad_token_id = PAD
        ids = BATCH.ids.masked_fill(~REAL, PAD)
        out = model(input_ids=ids, attention_mask=REAL.long()).logits
    return out if out.ndim == 2 else out[REAL]


def theirs(folder: Path, **options: Any) -> Any:
    name = "Sequence" if "Sequence" in str(folder) else "Token"
    auto = getattr(transformers, f"AutoModelFor{name}Classification")
    model, said = auto.from_pretrained(folder, output_loading_info=True, **options)
    assert options or not any(said.values()), f"transformers is not content with our names: {said}"
    return model.eval()


@pytest.mark.parametrize("kind", ["Sequence", "Token"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_folders_open_in_transformers_and_here_with_the_same_logits(backbone: str, kind: str, tmp_path: Path) -> None:
    model = classifier(backbone, kind)
    folder = save_model(tmp_path / kind, model, None, ModelCard(name=backbone))
    oracle = theirs(folder)
    assert type(oracle).__name__ == f"{backbone}For{kind}Classification"
    assert oracle.config.id2label == dict(enumerate(LABELS))
    if kind == "Sequence":
        assert oracle.config.problem_type == "single_label_classification"
    assert worst([logits(model)], [logits(oracle)]) <= 1e-5
    oracle.save_pretrained(tmp_path / f"their {kind}")
    for place in (folder, tmp_path / f"their {kind}"):
        again = open_model(place).model
        assert again.config == model.config
        assert type(again) is type(model)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name
    assert check_portability(folder, open_model(folder)).portable


def test_padding_changes_no_logits() -> None:
    for backbone, kind in (("Bert", "Sequence"), ("Llama", "Sequence"), ("GPT2", "Token")):
        model = classifier(backbone, kind)
        alone = [
            model.class_logits(TokenBatch(BATCH.ids[row : row + 1, :length]))
            for row, length in enumerate(LENGTHS.tolist())
        ]
        apart = torch.cat([each.reshape(-1, len(LABELS)) for each in alone])
        torch.testing.assert_close(logits(model), apart, rtol=0, atol=1e-5)


def adapted_classifier(backbone: str, kind: str, tmp_path: Path) -> Any:
    """A base folder, and a classifier of it with LoRA that changes its logits, and a trained head."""
    base: Any = build(BACKBONES[backbone], seed=0).eval()
    shake(base, 0.2)
    save_model(tmp_path / "base", base, None, ModelCard(name="base"))
    make = SequenceClassifier if kind == "Sequence" else TokenClassifier
    embedding = ("embedding",) if backbone in ("Phi3", "Bert") else ()
    model = adapt(
        make(base, LABELS).eval(), rank=3, targets=("query", "value", "up"), modules_to_save=embedding, seed=1
    )
    shaken = [each for each in model.parameters() if each.requires_grad]
    assert len(shaken) == 2 * len(lora_layers(model)) + len(embedding) + (
        1 if model.config.pooling == "last" else 4 if model.pooler else 2
    )
    with torch.no_grad():
        for number, each in enumerate(shaken):
            each.add_(torch.randn(each.shape, generator=torch.Generator().manual_seed(number)) * 0.3)
    return model


@pytest.mark.parametrize(
    ("backbone", "kind"),
    [
        ("Bert", "Sequence"),
        ("Llama", "Token"),
        ("Phi3", "Sequence"),  # tied embeddings, fused layers
        *(
            pytest.param(backbone, kind, marks=pytest.mark.slow)
            for backbone in BACKBONES
            for kind in ("Sequence", "Token")
            if (backbone, kind) not in (("Bert", "Sequence"), ("Llama", "Token"), ("Phi3", "Sequence"))
        ),
    ],
)
def test_adapter_equals_merged_equals_both_opened_elsewhere(backbone: str, kind: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="the oracle, peft, is not installed: pip install peft")
    model = adapted_classifier(backbone, kind, tmp_path)
    folder = save_adapter(tmp_path / f"{kind} adapter", model, tmp_path / "base", None, ModelCard(name="adapter"))
    expected = [logits(model)]

    opened = open_model(folder).model  # merged
    assert opened.config == model.config
    assert worst([logits(opened)], expected) <= 1e-5
    again = read_adapter(folder, model)
    assert torch.equal(logits(again), expected[0])
    assert all(each.requires_grad for each in again.classifier.parameters())

    auto = getattr(transformers, f"AutoModelFor{kind}Classification")
    base = auto.from_pretrained(tmp_path / "base", num_labels=len(LABELS))
    oracle = peft.PeftModel.from_pretrained(base, folder).eval()
    assert type(oracle).__name__ == f"PeftModelFor{kind}Classification"
    assert worst([logits(oracle)], expected) <= 1e-5

    merged = save_model(tmp_path / f"{kind} merged", merge_lora(model), None, ModelCard())
    assert worst([logits(theirs(merged))], expected) <= 1e-5
    assert worst([logits(open_model(merged).model)], expected) <= 1e-5


@pytest.mark.parametrize(("backbone", "kind"), [("Bert", "Token"), ("Qwen3", "Sequence")])
def test_their_adapter_opens_here_with_its_head(backbone: str, kind: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="the oracle, peft, is not installed: pip install peft")
    base: Any = build(BACKBONES[backbone], seed=0).eval()
    shake(base, 0.2)
    save_model(tmp_path / "base", base, None, ModelCard(name="base"))
    auto = getattr(transformers, f"AutoModelFor{kind}Classification")
    settings = peft.LoraConfig(r=4, task_type="SEQ_CLS" if kind == "Sequence" else "TOKEN_CLS")
    model = auto.from_pretrained(tmp_path / "base", num_labels=3)
    oracle = peft.get_peft_model(model, settings).eval()
    with torch.no_grad():
        for number, (key, weight) in enumerate(oracle.named_parameters()):
            if "lora_B" in key or "modules_to_save" in key:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.3)
    oracle.save_pretrained(tmp_path / "adapter")
    opened = open_model(tmp_path / "adapter").model
    assert opened.config.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert worst([logits(opened)], [logits(oracle)]) <= 1e-5


def test_recurrent_models_keep_their_heads_in_adapters(tmp_path: Path) -> None:
    base = build(RecurrentConfig(vocab=61, width=8, hidden_size=12, layers=2, tie_embeddings=False), seed=1)
    save_model(tmp_path / "base", base, None, ModelCard(name="base"))
    model = adapt(SequenceClassifier(base, LABELS, pooling="mean"), rank=2, targets=("input",), seed=1).eval()
    shake(model)
    save_model(tmp_path / "base", base, None, ModelCard(name="base"), overwrite=True)
    folder = save_adapter(tmp_path / "adapter", model, tmp_path / "base", None, ModelCard(name="adapter"))
    opened = open_model(folder).model
    assert opened.config == model.config
    assert worst([logits(opened)], [logits(model)]) <= 1e-5


def test_an_adapter_whose_pooler_is_lost_is_refused(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="the oracle, peft, is not installed: pip install peft")
    base = build(replace(MINILM, **SMALL, pooler=False), seed=0)
    save_model(tmp_path / "base", base, None, ModelCard(name="base"))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    peft.get_peft_model(model, peft.LoraConfig(r=4, task_type="SEQ_CLS")).save_pretrained(tmp_path / "adapter")
    with pytest.raises(BadInput, match=r"holds no pooler, and neither does its base model"):
        open_model(tmp_path / "adapter")


def test_native_folders_hold_heads_that_transformers_has_not(tmp_path: Path) -> None:
    lstm = RecurrentConfig(vocab=61, width=8, hidden_size=12, layers=2, tie_embeddings=False)
    minilm = replace(MINILM, **SMALL)
    recall = replace(TINY, recall=(2, 3), recall_rows=16)
    several: Any = "multi_label_classification"
    models = (
        SequenceClassifier(build(lstm, seed=1), LABELS),
        TokenClassifier(build(replace(lstm, cutoffs=(20,)), seed=1), LABELS),
        SequenceClassifier(build(minilm, seed=1), LABELS, pooling="mean", problem_type=several),
        SequenceClassifier(build(recall, seed=1), ("value",), problem_type="regression"),
    )
    for number, model in enumerate(models):
        shake(model.eval())
        folder = save_model(tmp_path / str(number), model, None, ModelCard(name="native"))
        again = open_model(folder).model
        assert again.config == model.config
        torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=1e-6)


def test_a_head_cannot_be_written_to_gguf(tmp_path: Path) -> None:
    from clearstory.formats.gguf.write import stored_config_and_architecture

    with pytest.raises(CannotDo, match=r"not support classification heads, and this model has one \(2 layers of width"):
        stored_config_and_architecture(classifier("Llama", "Sequence").config)
