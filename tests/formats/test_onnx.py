"""ONNX: exported graphs give the model's outputs in onnxruntime, for any length, batched and with the cache."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from clearstory.cli.main import main
from clearstory.errors import BadInput, BadSetting, CannotDo, CorruptFile, FolderExists, MissingExtra, OutOfSpace
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.formats.onnx import export
from clearstory.formats.onnx.export import GRAPHS
from clearstory.models.base import TokenBatch
from clearstory.models.baselines.bag_of_words import BagOfWords
from clearstory.models.baselines.ngram_classifier import NGramClassifier
from clearstory.models.families import PRESETS
from clearstory.models.heads import SequenceClassifier, TokenClassifier
from clearstory.models.hmm.model import HMM
from clearstory.models.mixture.model import Mixture
from clearstory.models.ngram.model import NGram
from clearstory.models.recurrent.encoder_decoder import RecurrentEncoderDecoder
from clearstory.models.recurrent.model import Recurrent
from clearstory.models.transformer.decoder import Transformer
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.recipes.conversion import check_onnx
from clearstory.recipes.conversion.convert import Conversion, convert
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS, TINY_CLEAR, TINY_GPT2, TINY_LSTM, shaken

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"the package {package} is not installed: clearstory[onnx]")

SMALL = {
    "vocab": 23,
    "context": 24,
    "width": 16,
    "layers": 2,
    "heads": 2,
    "kv_heads": 2,
    "head_dim": 8,
    "intermediate_size": 32,
}
TINY_BERT = replace(BERT_TINY, **SMALL | {"layers": 1})
TINY_PHI3 = replace(PRESETS["phi3-mini"], **SMALL | {"heads": 4, "kv_heads": 2, "head_dim": 4}, sliding_window=5)

WIRINGS: dict[str, Any] = {
    "gpt2": replace(TINY_GPT2, layers=1),
    "phi3": TINY_PHI3,
    "bert": TINY_BERT,
    "lstm": TINY_LSTM,
}
"""Exported in every run of the tests; each takes seconds."""

SLOW: dict[str, Any] = {
    "clear": TINY_CLEAR,
    "llama": replace(TINY_CLEAR, qk_norm=False, rope_factor=4.0, rope_original_context=16, tie_embeddings=False),
    "gpt2 without biases": replace(TINY_GPT2, bias=False),
    "gemma3": replace(
        PRESETS["gemma3-270m"],
        **SMALL | {"heads": 4, "kv_heads": 2, "head_dim": 4},
        sliding_window=5,
        global_interval=2,
    ),
    "distances": replace(TINY_GPT2, positions="relative_bias", sliding_window=7),
    "waves": replace(TINY_GPT2, positions="sinusoidal", embed_scale=True),
    "placeless": replace(TINY_GPT2, positions="none", norm_first=False),
    "vectors": replace(TINY_BERT, mlm_transform=False, unembed_bias=False, pooler=False),
    "clear both ways": replace(TINY_CLEAR, architecture="encoder"),
    "distances both ways": replace(TINY_GPT2, architecture="encoder", positions="relative_bias"),
    "t5": replace(T5_SMALL, **SMALL, decoder_layers=1),
    "two windows": replace(TINY_PHI3, architecture="encoder-decoder"),
    "rnn": replace(TINY_LSTM, cell="rnn"),
    "gru": replace(TINY_LSTM, cell="gru", tie_embeddings=False),
    "adaptive": replace(TINY_LSTM, cutoffs=(5, 12)),
}


WORDS = train_tokenizer("wordpiece:20", ["a cab, a bad cab; a bad dad"])
"""At most as many tokens as the tiny models have."""


def written(folder: Path, config: Any, seed: int = 1) -> Path:
    """A folder of a model with randomized weights."""
    return save_model(folder, shaken(config, seed).float(), WORDS, ModelCard(name="tiny"))


class Drawn:
    """A model and its ONNX export."""

    def __init__(self, home: Path, config: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.found: Conversion = convert(written(home / "model", config), home / "onnx", "onnx")
        self.home, self.folder = home, home / "onnx"
        self.model = open_model(home / "model").model

    def run(self, ids: Any, mask: Any = None, past: Any = None) -> dict[str, Any]:
        """The outputs of the decoder's graph for ids (B, T) after a past."""
        c = self.model.config
        nothing = np.zeros((len(ids), c.kv_heads, 0, c.head_dim), np.float32)
        kept = {f"{layer}.{part}": nothing for layer in range(c.layers) for part in ("key", "value")}
        if past is not None:
            kept = {name: past[f"present.{name}"] for name in kept}
        known = kept["0.key"].shape[2]
        mask = np.ones((len(ids), known + len(ids[0])), np.int64) if mask is None else np.array(mask)
        graph = check_onnx.open_session(self.folder / "model.onnx")
        given = {f"past_key_values.{name}": each for name, each in kept.items()}
        return check_onnx.run_graph(graph, {"input_ids": np.array(ids), "attention_mask": mask, **given})

    def logits(self, row: list[int]) -> Any:
        """The model's own."""
        hidden, _ = self.model.forward(TokenBatch.from_sequences([row]))
        return self.model.logits(hidden)[0].detach().numpy()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: Any) -> Any:
    """Every config, exported once, on first use."""
    return lru_cache(None)(lambda name: Drawn(tmp_path_factory.mktemp(name.replace(" ", "-")), WIRINGS[name]))


@pytest.mark.parametrize("name", WIRINGS)
def test_onnxruntime_gives_the_same_outputs(name: str, shelf: Any) -> None:
    found = shelf(name).found
    assert (found.format, found.dtype) == ("onnx", "f32")
    assert found.max_relative_difference < 1e-5
    assert found.max_nats_difference < 1e-4
    assert found.tokens_compared > 200


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_architecture_can_be_exported(name: str, tmp_path: Path) -> None:
    found = Drawn(tmp_path, SLOW[name]).found
    assert found.max_relative_difference is not None
    assert found.max_relative_difference < 1e-5
    vectors_only = name in ("vectors", "clear both ways", "distances both ways")
    assert (found.max_nats_difference is None) == vectors_only


DECODERS = ("gpt2", "phi3")


@pytest.mark.parametrize("name", DECODERS)
def test_padding_may_be_on_either_side_with_any_ids(name: str, shelf: Any) -> None:
    drawn = shelf(name)
    long, short = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [8, 9, 7, 9]
    ones, zeros = [1] * 4, [0] * 7
    for junk in (0, 22):
        left = drawn.run([long, [junk] * 7 + short], [[1] * 11, zeros + ones])["logits"]
        right = drawn.run([long, short + [junk] * 7], [[1] * 11, ones + zeros])["logits"]
        assert np.isfinite(left).all(), "NaN would spread from padding to all other tokens"
        for found, row in ((left[0], long), (right[0], long), (left[1, 7:], short), (right[1, :4], short)):
            assert found == pytest.approx(drawn.logits(row), abs=1e-4)


@pytest.mark.parametrize("name", DECODERS)
def test_sequences_of_several_lengths_continue_with_the_cache(name: str, shelf: Any) -> None:
    drawn = shelf(name)
    rows = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [8, 9, 7]]
    mask = [[1] * 10, [0] * 7 + [1] * 3]
    past = drawn.run([rows[0], [0] * 7 + rows[1]], mask)
    # Longer than the window of 5, and then one token at a time.
    for step in range(4):
        rows, mask = [[*row, step] for row in rows], [[*row, 1] for row in mask]
        past = drawn.run([[step], [step]], mask, past)
        for found, row in zip(past["logits"], rows, strict=True):
            assert found[0] == pytest.approx(drawn.logits(row)[-1], abs=1e-4)


def test_a_sequence_beyond_the_context_is_an_error(shelf: Any, capfd: Any) -> None:
    for name in DECODERS:
        assert shelf(name).run([[1] * 24])["logits"].shape == (1, 24, 23)
        with pytest.raises(Exception, match="invalid index found, index = 24"):
            shelf(name).run([[1] * 25])
    capfd.readouterr()  # onnxruntime prints it too


@pytest.mark.parametrize(("name", "kind"), [("gpt2", "GPT2LMHeadModel"), ("bert", "BertForPreTraining")])
def test_transformers_gives_the_same_outputs_for_the_original_folder(name: str, kind: str, shelf: Any) -> None:
    import transformers

    drawn = shelf(name)
    assert json.loads((drawn.folder / "config.json").read_text())["architectures"] == [kind]
    theirs = getattr(transformers, kind).from_pretrained(drawn.home / "model").eval()
    ids, mask = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]]), np.array([[1] * 5, [1, 1, 1, 0, 0]])
    with torch.no_grad():
        out = theirs(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
    wanted = (out.logits if name == "gpt2" else out.prediction_logits).numpy()[mask > 0]
    if name == "gpt2":
        found = drawn.run(ids, mask)["logits"]
    else:
        graph = check_onnx.open_session(drawn.folder / "model.onnx")
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        found = check_onnx.run_graph(graph, given)["logits"]
    assert found[mask > 0] == pytest.approx(wanted, abs=1e-4)


def test_inputs_and_outputs_have_optimums_names(shelf: Any) -> None:
    kept = [f"{layer}.{part}" for layer in (0, 1) for part in ("key", "value")]
    past, present = [f"past_key_values.{each}" for each in kept], [f"present.{each}" for each in kept]
    wanted = {
        "phi3": (["input_ids", "attention_mask", *past], ["logits", *present]),
        "bert": (["input_ids", "attention_mask", "token_type_ids"], ["last_hidden_state", "logits", "pooler_output"]),
        "lstm": (
            ["input_ids", "past.0.hidden", "past.0.cell", "past.1.hidden", "past.1.cell"],
            ["logits", "present.0.hidden", "present.0.cell", "present.1.hidden", "present.1.cell"],
        ),
    }
    for name, (inputs, outputs) in wanted.items():
        graph = check_onnx.open_session(shelf(name).folder / "model.onnx")
        assert [each.name for each in graph.get_inputs()] == inputs
        assert [each.name for each in graph.get_outputs()] == outputs
        assert graph.get_inputs()[0].shape == ["batch_size", "sequence_length"]
    graph = check_onnx.open_session(shelf("phi3").folder / "model.onnx")
    assert graph.get_inputs()[2].shape == ["batch_size", 2, "past_sequence_length", 4]


def test_a_folder_is_complete_and_has_standard_operators_only(shelf: Any) -> None:
    import onnx
    from tokenizers import Tokenizer

    for name in WIRINGS:
        folder = shelf(name).folder
        names = {"README.md", "checksums.json", "config.json", "generation_config.json", "model.onnx", "tokenizer.json"}
        names = {*names, "tokenizer_config.json"} - ({"generation_config.json"} if name == "bert" else set())
        assert {each.name for each in folder.iterdir()} == names
        assert shelf(name).found.bytes == sum(each.stat().st_size for each in folder.iterdir())
        proto = onnx.load(folder / "model.onnx")
        onnx.checker.check_model(proto, full_check=True)
        assert {each.domain for each in proto.graph.node} == {""}
        assert [(each.domain, each.version) for each in proto.opset_import] == [("", export.OPSET)]
        ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a bad cab", add_special_tokens=False).ids
        assert ids == WORDS.encode("a bad cab")
    with pytest.raises(BadInput, match=r"holds model\.onnx, an ONNX graph for onnxruntime; open the model"):
        open_model(shelf("gpt2").folder)


def test_a_graph_with_other_outputs_is_not_kept(shelf: Any, tmp_path: Path) -> None:
    drawn, other = shelf("gpt2"), written(tmp_path / "other", WIRINGS["gpt2"], seed=2)

    def wrong(folder: Path, graph: Any) -> None:
        shutil.copy(drawn.folder / "model.onnx", folder / graph.file)

    with mock.patch.object(export, "save_graph", wrong):
        with pytest.raises(
            CorruptFile, match=r"onnxruntime's outputs differ from the model's: one differs by .*/out is not"
        ):
            convert(other, tmp_path / "out", "onnx")
        # The same weights are accepted; and a failed export leaves an existing folder unchanged.
        assert convert(drawn.home / "model", tmp_path / "good", "onnx").max_relative_difference < 1e-5
        before = (tmp_path / "good" / "config.json").read_bytes()
        with pytest.raises(FolderExists, match="exists already"):
            convert(other, tmp_path / "good", "onnx")
        with pytest.raises(CorruptFile):
            convert(other, tmp_path / "good", "onnx", overwrite=True)
        assert (tmp_path / "good" / "config.json").read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["good", "other"]


def test_a_graph_that_onnxruntime_cannot_run_is_not_kept(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", TINY_GPT2)
    broken = mock.patch.object(export, "save_graph", lambda to, graph: (to / graph.file).write_bytes(b"ONNX"))
    with broken, pytest.raises(CorruptFile, match=r"onnxruntime cannot run the exported graph \(.*Protobuf"):
        convert(folder, tmp_path / "out", "onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_nan_is_not_equal() -> None:
    model = torch.nn.Linear(1, 1)
    nothing = [check_onnx.OutputPair(torch.ones(2, 3), torch.full((2, 3), torch.nan))]
    readings = mock.patch.dict(check_onnx.GRAPH_CHECKS, {type(model): lambda folder, model: nothing})
    with readings, pytest.raises(CorruptFile, match="differs by nan"):
        check_onnx.check_onnx(Path("here"), model, Path("there"))


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutOfSpace, "free some space or choose another folder"),
        (
            ValueError("an operator\nis missing"),
            CannotDo,
            r"cannot export model\.onnx \(an operator is missing\); please",
        ),
    ],
)
def test_an_exporter_failure_is_one_sentence(error: Exception, kind: Any, sentence: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "model", TINY_GPT2)
    full = isinstance(error, OSError)
    program = SimpleNamespace(save=mock.Mock(side_effect=error), model=SimpleNamespace(metadata_props={}))
    drawing = mock.Mock(return_value=program) if full else mock.Mock(side_effect=error)
    with mock.patch.object(export, "export_graph", drawing), pytest.raises(kind, match=sentence):
        convert(folder, tmp_path / "out", "onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_models_that_cannot_be_exported_are_rejected_before_writing(tmp_path: Path) -> None:
    for name, sentence in (
        ("recalling", "hashed n-grams of ids"),
        ("ngram", r"n-gram models cannot be exported to ONNX; .* \.arpa"),
        ("hmm", "hidden Markov models cannot"),
    ):
        folder = save_model(tmp_path / name, MODELS[name]().float(), None, ModelCard())
        with pytest.raises(CannotDo, match=sentence):
            convert(folder, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()
    folder = written(tmp_path / "model", TINY_GPT2)
    missing = mock.patch.dict(sys.modules, {"onnxscript": None})
    with missing, pytest.raises(MissingExtra, match=r"ONNX needs onnxscript: pip install 'clearstory\[onnx\]'"):
        convert(folder, tmp_path / "out", "onnx")
    for out, to, more, sentence in (
        ("model.onnx", "onnx", {}, "ONNX is written as a folder"),
        ("model.onnx", None, {}, "give a folder, and pass --to onnx"),
        ("model.gguf", "onnx", {}, "is the name of a GGUF file, and --to is onnx, a folder"),
        ("out", "onnx", {"dtype": "f16"}, "--dtype is f16, and onnx supports f32"),
        ("out", "onnx", {"check": True}, "--check compares with transformers, which cannot open ONNX"),
    ):
        with pytest.raises(BadSetting, match=sentence):
            convert(folder, tmp_path / out, to, **more)  # type: ignore[arg-type]  # what is typed
    assert not (tmp_path / "out").exists()


LABELS = ("joy", "anger", "none")

HEADS: dict[str, Any] = {
    "texts, pooler": lambda: SequenceClassifier(shaken(TINY_BERT, 1), LABELS),
    "words": lambda: TokenClassifier(shaken(TINY_BERT, 1), LABELS),
    "texts, mean": lambda: SequenceClassifier(shaken(TINY_BERT, 1), LABELS, pooling="mean"),
    "texts, last token": lambda: SequenceClassifier(shaken(replace(TINY_GPT2, layers=1), 1), LABELS),
    "words, window": lambda: TokenClassifier(shaken(TINY_PHI3, 1), LABELS),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "words" else pytest.mark.slow) for n in HEADS])
def test_heads_give_the_same_logits_and_name_their_labels(name: str, tmp_path: Path) -> None:
    import onnx

    folder = save_model(tmp_path / "model", HEADS[name]().float().eval(), WORDS, ModelCard(name="head"))
    found = convert(folder, tmp_path / "onnx", "onnx")
    assert found.max_relative_difference is not None
    assert found.max_relative_difference < 1e-5
    properties = {each.key: each.value for each in onnx.load(tmp_path / "onnx" / "model.onnx").metadata_props}
    assert json.loads(properties["id2label"]) == {str(id): label for id, label in enumerate(LABELS)}
    config = json.loads((tmp_path / "onnx" / "config.json").read_text())
    assert config["id2label"]["0"] == "joy" if "id2label" in config else config["model"]["labels"] == list(LABELS)


def test_heads_of_other_models_are_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", SequenceClassifier(shaken(TINY_LSTM, 1), LABELS).float(), None, ModelCard())
    with pytest.raises(CannotDo, match=r"the head of this model \(lstm\) cannot be exported to ONNX; supported: heads"):
        convert(folder, tmp_path / "out", "onnx")


def test_every_model_class_is_exported_or_rejected() -> None:
    heads, baselines = {SequenceClassifier, TokenClassifier}, {BagOfWords, NGramClassifier}
    networks = {Transformer, Encoder, EncoderDecoder, Recurrent, RecurrentEncoderDecoder}
    assert set(GRAPHS) == networks | {HMM, NGram, Mixture} | heads | baselines
    refused = (
        *(export.ngram_graphs, export.hmm_graphs, export.mixture_graphs, export.baseline_graphs),
        export.recurrent_encoder_decoder_graphs,
    )
    drawn = {kind for kind, draw in GRAPHS.items() if draw not in refused}
    assert drawn == set(check_onnx.GRAPH_CHECKS)


def test_the_command_prints_the_differences(shelf: Any, tmp_path: Path, capsys: Any) -> None:
    drawn = shelf("gpt2")
    model = str(drawn.home / "model")

    def copied(folder: Path, graph: Any) -> None:
        shutil.copy(drawn.folder / "model.onnx", folder / graph.file)

    with mock.patch.object(export, "save_graph", copied):
        assert main(["convert", model, str(tmp_path / "a"), "--to", "onnx"]) == 0
        out, err = capsys.readouterr()
        assert "onnxruntime: outputs for 345 tokens differ by at most" in out.replace("\n", " ")
        assert err == ""
        assert main(["convert", model, str(tmp_path / "b"), "--to", "onnx", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["tokens_compared"]) == ("onnx", 345)
    assert said["max_relative_difference"] < 1e-5


@pytest.mark.slow
def test_large_weights_are_stored_beside_the_graph(tmp_path: Path) -> None:
    with mock.patch.object(export, "MAX_FILE_BYTES", 1000):
        folder = Drawn(tmp_path, TINY_GPT2).folder
    assert (folder / "model.onnx.data").stat().st_size > 10_000
    assert check_onnx.check_onnx(folder, open_model(tmp_path / "model").model, folder).max_relative_difference < 1e-5


@pytest.mark.slow
def test_the_exporter_prints_nothing(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", TINY_BERT)
    words = [sys.executable, "-W", "always", "-m", "clearstory", "convert", folder, tmp_path / "out", "--to", "onnx"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") < 5
