"""GGUF: write then read is the identity bit for bit; files of other tools are read as those tools read them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from ggufs import BASE, GGUF_ARCHITECTURES, LLAMA, TEXT, WIRINGS, bpe, packed, saved, shaken, written

from clearstory.errors import BadInput, BadSetting, CannotDo, CorruptFile, FolderExists, UnknownName
from clearstory.formats.folders import OpenedModel, open_model
from clearstory.formats.gguf.architectures import choose_architecture
from clearstory.formats.gguf.header import GGUFHeader
from clearstory.formats.gguf.quantization import BLOCK_FORMATS, QUANTIZATION_TYPES
from clearstory.formats.gguf.write import llama_cpp_warning, write_gguf
from clearstory.formats.model_card import ModelCard
from clearstory.formats.rotary_layout import halves_to_pairs, pairs_to_halves
from clearstory.models.base import TokenBatch
from clearstory.models.build import count_parameters
from clearstory.models.families import PRESETS
from clearstory.models.inference_model import inference_model, precision_of_blocks
from clearstory.models.matmul.block_linear import BlockQuantizedLinear
from clearstory.models.matmul.packed import is_available, pack_linear
from clearstory.models.transformer.positions import rope_scaling_divisors
from clearstory.recipes.conversion.convert import convert
from clearstory.recipes.inference.evaluate import evaluate
from clearstory.recipes.inference.generate import generate
from clearstory.recipes.inference.inspect import inspect
from clearstory.text.train_tokenizer import train_tokenizer

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed: clearstory[formats]")

ROWS = [[3, 1, 4, 1, 5, 9, 2, 6, 299], [18, 0, 17, 5, 8, 2, 8, 4, 299]]


@pytest.mark.parametrize("name", WIRINGS)
def test_export_then_import_is_the_identity(name: str, tmp_path: Path) -> None:
    config = WIRINGS[name]
    assert choose_architecture(config).name == GGUF_ARCHITECTURES[name]
    model = written(tmp_path / "model.gguf", config)
    after = open_model(tmp_path / "model.gguf")
    assert after.model.config == config
    assert (after.card.name, after.card.parameters) == ("tiny", count_parameters(model))
    for key, tensor in model.state_dict().items():
        # The file holds 1 + weight of Gemma's norms, rounded.
        rounding = 1e-7 if config.norm == "rms_unit_offset" and "norm" in key else 0
        assert torch.allclose(tensor, after.model.state_dict()[key], rtol=0, atol=rounding), key
    assert torch.equal(OpenedModel(model, None, ModelCard()).logits(ROWS), after.logits(ROWS))


def test_a_folder_becomes_a_file_and_the_same_folder_again(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", WIRINGS["llama"])
    found = convert(folder, tmp_path / "model.gguf")
    assert (found.format, found.dtype, found.max_nats_difference, found.max_rounding_difference) == (
        "gguf",
        "f32",
        0.0,
        0.0,
    )
    assert found.tokens_compared > 100
    assert found.bytes == (tmp_path / "model.gguf").stat().st_size
    convert(tmp_path / "model.gguf", tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_biases_that_gpt2_always_has_are_written_as_zeros(tmp_path: Path) -> None:
    model = written(tmp_path / "model.gguf", replace(BASE, bias=False))
    after = open_model(tmp_path / "model.gguf")
    assert after.model.config == BASE
    assert torch.equal(after.logits(ROWS), OpenedModel(model, None, ModelCard()).logits(ROWS))


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_rounding_errors_stay_within_the_formats_bounds(dtype: Any, tmp_path: Path) -> None:
    before = written(tmp_path / "model.gguf", WIRINGS["llama"], dtype=dtype).state_dict()
    after = open_model(tmp_path / "model.gguf").model.state_dict()
    wide = 0
    for name, tensor in before.items():
        error = (tensor - after[name]).abs()
        if tensor.ndim == 1:
            assert not error.any(), f"{name} is a norm, and stays in float32"
            continue
        if dtype == "f16" or tensor.shape[1] % 32:
            assert bool((error <= tensor.abs() * 2**-11 + 2**-25).all()), name
            wide += dtype == "q8_0"
        else:
            # A 127th of the block's largest is a step; half a step, and the rounding of the step itself.
            blocks = tensor.reshape(-1, 32).abs().amax(1, keepdim=True)
            assert bool((error.reshape(-1, 32) <= blocks * (0.5 / 127 + 2**-11)).all()), name
    assert wide == (2 if dtype == "q8_0" else 0), "rows of 48 make no blocks of 32: two maps down stay F16"


def test_queries_and_keys_are_interleaved_in_llama_only(tmp_path: Path) -> None:
    # Two heads of four: in halves 0 turns with 2 and 1 with 3; in pairs those stand side by side.
    assert halves_to_pairs(torch.arange(8), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    rows = torch.randn(3 * 10, 7)
    assert torch.equal(pairs_to_halves(halves_to_pairs(rows, 3), 3), rows)
    assert torch.equal(halves_to_pairs(pairs_to_halves(rows, 3), 3), rows)
    for name in ("llama", "qwen3"):
        ours = written(tmp_path / f"{name}.gguf", WIRINGS[name]).state_dict()
        header = GGUFHeader.read(tmp_path / f"{name}.gguf")
        for theirs, mine, heads in (("attn_q", "query", 4), ("attn_k", "key", 2), ("attn_v", "value", None)):
            weight = ours[f"blocks.1.attention.{mine}.weight"]
            turned = halves_to_pairs(weight, heads) if name == "llama" and heads else weight
            assert torch.equal(header.tensor(f"blk.1.{theirs}.weight"), turned), (name, theirs)


def test_llama_31s_rope_scaling_is_written_as_divisors(tmp_path: Path) -> None:
    config = WIRINGS["llama3.1"]
    written(tmp_path / "model.gguf", config)
    factors = GGUFHeader.read(tmp_path / "model.gguf").tensor("rope_freqs.weight")
    # Speeds 1, 0.316, 0.1, 0.0316: in 128 tokens 20.4, 6.44, 2.04 and 0.64 turns. The first two turn over four times
    # and are kept, the last not once; of the third (2.037 − 1) / (4 − 1) = 0.3457 is kept and the rest an eighth.
    assert factors.tolist() == pytest.approx([1, 1, 1 / (0.3457 + 0.6543 / 8), 8], rel=1e-3)
    assert torch.equal(rope_scaling_divisors(torch.tensor([1e-9]), 8.0, 256), torch.tensor([8.0]))


@pytest.mark.parametrize("kind", QUANTIZATION_TYPES.values(), ids=lambda kind: kind.name)
def test_dequantization_equals_that_of_the_package(kind: Any) -> None:
    generator = torch.Generator().manual_seed(kind.code)
    raw = torch.randint(0, 256, (6, kind.block_bytes * 2), dtype=torch.uint8, generator=generator)
    sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind.code)]
    assert (kind.block_size, kind.block_bytes) == sizes
    assert kind.name == gguf.GGMLQuantizationType(kind.code).name
    with np.errstate(all="ignore"):  # scales drawn by lot may be infinite
        ours = kind.dequantize(raw.flatten(), (6, 2 * kind.block_size))
        if kind.name == "F64":
            assert torch.equal(ours, raw.flatten().view(torch.float64).view(6, 2))
            return
        theirs = torch.from_numpy(gguf.quants.dequantize(raw.numpy(), gguf.GGMLQuantizationType(kind.code)).copy())
    assert torch.equal(ours.float().nan_to_num(7, 8, 9), theirs.view(6, -1).nan_to_num(7, 8, 9))


@pytest.mark.parametrize("name", BLOCK_FORMATS)
def test_groups_of_blocks_are_the_numbers_of_the_blocks(name: str) -> None:
    type = next(each for each in QUANTIZATION_TYPES.values() if each.name == name)
    raw = torch.randint(0, 256, (3, 2 * 256 // type.block_size * type.block_bytes), dtype=torch.uint8)
    blocks = raw.view(-1, type.block_bytes)
    blocks[:, 1], blocks[:, 3] = 0x30, 0x30 if name not in ("Q4_0", "Q5_0", "Q8_0") else blocks[:, 3]  # about 0.13
    groups = BLOCK_FORMATS[name].groups(raw)
    scaled = (groups.integers.view(3, -1, 32) - groups.zero) * groups.scale[..., None] + groups.offset[..., None]
    assert torch.allclose(scaled.flatten(1), BLOCK_FORMATS[name].dequantize(raw), rtol=1e-5, atol=1e-4)


def test_common_formats_need_no_package() -> None:
    without = {each.name for each in QUANTIZATION_TYPES.values() if each.read is None}
    assert without == {"Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS"}


def test_the_header_equals_that_of_the_package(tmp_path: Path) -> None:
    written(tmp_path / "model.gguf", WIRINGS["qwen3"])
    ours, theirs = GGUFHeader.read(tmp_path / "model.gguf"), gguf.GGUFReader(tmp_path / "model.gguf")
    said = {name: each.contents() for name, each in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata.keys() == said.keys()
    for name, value in ours.metadata.items():
        if isinstance(value, float):
            assert value == pytest.approx(said[name], rel=1e-7)
        else:
            assert (value.tolist() if hasattr(value, "tolist") else value) == said[name], name
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        placed = ours.tensors[tensor.name]
        assert (placed.start, placed.size, list(reversed(placed.shape))) == (
            int(tensor.data_offset),
            int(tensor.n_bytes),
            tensor.shape.tolist(),
        )
    for key, value in {
        "general.architecture": "qwen3",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "qwen3.attention.key_length": 8,
    }.items():
        assert ours.metadata[key] == value


def test_unused_vocabulary_entries_are_named_and_dropped_again(tmp_path: Path) -> None:
    tokenizer = bpe()
    written(tmp_path / "model.gguf", replace(LLAMA, vocab=tokenizer.vocab + 7), tokenizer)
    fields = GGUFHeader.read(tmp_path / "model.gguf").metadata
    assert fields["tokenizer.ggml.tokens"][-1] == f"[PAD{tokenizer.vocab + 6}]"
    after = open_model(tmp_path / "model.gguf")
    assert after.tokenizer is not None
    assert (after.tokenizer.vocab, after.model.vocab) == (tokenizer.vocab, tokenizer.vocab + 7)


def test_chat_template_and_special_tokens_are_stored(tmp_path: Path) -> None:
    tokenizer = bpe()
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer = replace(tokenizer, config={**tokenizer.config, "chat_template": template, "pad_token": None})
    written(tmp_path / "model.gguf", LLAMA, tokenizer)
    after = open_model(tmp_path / "model.gguf").tokenizer
    assert after is not None
    assert after.config["chat_template"] == template
    assert (after.eos_token_id, after.bos_token_id, after.pad_token_id, after.unk_token_id) == (
        tokenizer.eos_token_id,
        tokenizer.bos_token_id,
        None,
        None,
    )
    assert 0 not in after.encode("<|endoftext|>"), "text is never a command"
    assert after.encode_parsing_special("<|endoftext|>") == [0]


@pytest.mark.parametrize("spec", ["bytes", "bpe:300"])
def test_stored_tokenizers_give_the_same_ids(spec: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(spec, [TEXT])
    written(tmp_path / "model.gguf", replace(LLAMA, vocab=tokenizer.vocab), tokenizer)
    after = open_model(tmp_path / "model.gguf").tokenizer
    assert after is not None
    for text in ("Call me\n\n  Ishmael, 1851!", "naïve 東京 🙂", ""):
        assert after.encode(text) == tokenizer.encode(text)
        assert after.decode(after.encode(text)) == text


@pytest.mark.parametrize("spec", ["characters", "words", "unigram:280", "wordpiece:200"])
def test_tokenizers_that_gguf_cannot_represent_are_rejected(spec: str, tmp_path: Path) -> None:
    with pytest.raises(CannotDo, match="keep the model folder"):
        written(tmp_path / "model.gguf", LLAMA, train_tokenizer(spec, [TEXT * 5]))
    assert not list(tmp_path.iterdir())


def test_architectures_that_gguf_cannot_represent_are_rejected(tmp_path: Path) -> None:
    odd = {
        "none": replace(BASE, positions="none"),
        "relu": replace(BASE, activation="relu"),
        "wide": replace(BASE, head_dim=10),
        "window": replace(LLAMA, sliding_window=4, qk_norm=True),
        "slow": replace(LLAMA, qk_norm=True, rope_factor=8.0, rope_original_context=16),
    }
    for name, config in odd.items():
        with pytest.raises(CannotDo, match=r"GGUF has no architecture for this model"):
            written(tmp_path / f"{name}.gguf", config)
    assert not list(tmp_path.iterdir())
    for name in ("rnn", "ngram", "bert-base", "t5-small", "recall"):
        with pytest.raises(CannotDo, match="keep the model folder"):
            choose_architecture(PRESETS[name])


def test_a_model_without_a_tokenizer_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="this model has no tokenizer, and a GGUF file holds both"):
        write_gguf(tmp_path / "model.gguf", shaken(LLAMA), None, "tiny")


def test_a_file_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_text("mine")
    with pytest.raises(FolderExists, match="exists already"):
        written(file, LLAMA)
    with (
        pytest.raises(ZeroDivisionError),
        mock.patch("clearstory.formats.gguf.write.quantize_tensor", side_effect=ZeroDivisionError),
    ):
        written(file, LLAMA, overwrite=True)
    assert file.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["model.gguf"]
    written(file, LLAMA, overwrite=True)
    assert open_model(file).model.config == LLAMA


def test_file_name_format_and_dtype_must_agree(tmp_path: Path) -> None:
    for out, to, dtype, sentence in (
        ("model.gguf", "hf", None, "is the name of a GGUF file, and --to is hf, a folder"),
        ("model.arpa", "gguf", None, r"is the name of a ARPA file, and --to is gguf, a file that ends in \.gguf"),
        ("model", "gguf", None, r"--to is gguf, and .* does not end in \.gguf"),
        ("model.gguf", None, "bf16", "--dtype is bf16, and gguf supports f32, f16, q8_0"),
        ("model", None, "q8_0", "--dtype is q8_0, and hf supports f32, f16, bf16"),
        ("model.arpa", "arpa", "f16", "--dtype is f16, and arpa supports f32"),
    ):
        with pytest.raises(BadSetting, match=sentence):
            convert("nothing", tmp_path / out, to, dtype=dtype)  # type: ignore[arg-type]  # what is typed


def test_a_folder_can_be_written_in_float16(tmp_path: Path) -> None:
    written(tmp_path / "model.gguf", LLAMA, dtype="q8_0")
    found = convert(tmp_path / "model.gguf", tmp_path / "half", dtype="f16")
    assert (found.dtype, found.max_nats_difference) == ("f16", 0.0)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"
    assert 0 < found.max_rounding_difference < 0.05


def test_what_llama_cpp_ignores_is_noted(tmp_path: Path) -> None:
    found = convert(saved(tmp_path / "model", WIRINGS["phi3"]), tmp_path / "model.gguf", dtype="f16")
    assert found.note is not None
    assert "texts of up to 40 tokens" in found.note
    assert found.max_nats_difference == 0.0 < found.max_rounding_difference < 0.1
    assert llama_cpp_warning(shaken(LLAMA)) is None


def test_a_name_that_llama_cpp_would_take_for_phi3_is_changed(tmp_path: Path) -> None:
    written(tmp_path / "model.gguf", LLAMA, name="my-Phi3-mini")
    assert GGUFHeader.read(tmp_path / "model.gguf").metadata["general.name"] == "my-Phi 3-mini"


def test_a_file_is_a_model_like_any_other(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", LLAMA)
    written(tmp_path / "model.gguf", LLAMA)
    (tmp_path / "text.txt").write_text("Call me Ishmael. Some years ago")
    both = [str(folder), str(tmp_path / "model.gguf")]
    texts = [generate(each, "Call me", max_tokens=8, temperature=0).text for each in both]
    assert texts[0] == texts[1]
    nats = [evaluate(each, tmp_path / "text.txt").score.nats for each in both]
    assert nats[0] == nats[1]
    views = [inspect(each, "Call me", view="next-token") for each in both]
    assert views[0] == views[1]


def test_changing_an_opened_model_leaves_its_file_unchanged(tmp_path: Path) -> None:
    written(tmp_path / "model.gguf", LLAMA)
    before = (tmp_path / "model.gguf").read_bytes()
    opened = open_model(tmp_path / "model.gguf")
    with torch.no_grad():
        for weight in opened.model.parameters():
            weight.zero_()
    assert (tmp_path / "model.gguf").read_bytes() == before


def test_an_unknown_architecture_is_named_with_those_that_are_supported(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(packed({"general.architecture": "llama4"}, {"a": ([4], 0, 0)}, bytes(16)))
    sentence = r"x\.gguf: its general\.architecture is 'llama4', which is not supported; supported: gpt2, llama, qwen3"
    with pytest.raises(UnknownName, match=sentence):
        open_model(file)


def test_biases_of_queries_and_keys_alone_are_read(tmp_path: Path) -> None:
    model = shaken(replace(LLAMA, bias=True))
    file = tmp_path / "all.gguf"
    write_gguf(file, model, bpe(), "tiny", "f32")
    reader = gguf.GGUFReader(file)
    writer = gguf.GGUFWriter(tmp_path / "some.gguf", "llama")
    for key, field in reader.fields.items():
        if not key.startswith(("GGUF.", "clearstory.")) and key != "general.architecture" and "key_length" not in key:
            kind = field.types[0]
            sub_type = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, sub_type)
    for tensor in reader.tensors:
        if not tensor.name.endswith(".bias") or "attn_q" in tensor.name or "attn_k" in tensor.name:
            writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".bias") and "query" not in name and "key" not in name:
                weight.zero_()
    opened = open_model(tmp_path / "some.gguf")
    ids = torch.tensor([[5, 17, 3, 42, 8, 29]])
    assert torch.equal(opened.logits(ids), OpenedModel(model, None, ModelCard()).logits(ids))


@pytest.mark.parametrize("dtype", ["q4_0", "q4_1", "q8_0"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_weights_stay_in_blocks_until_they_are_packed(name: str, dtype: str, kernels_by: str, tmp_path: Path) -> None:
    codes = {"q4_0": 2, "q4_1": 3}
    with (
        mock.patch.dict("clearstory.formats.gguf.write.DTYPE_CODES", codes),
        mock.patch.dict("clearstory.formats.gguf.write.FILE_TYPES", codes),
    ):
        written(tmp_path / "model.gguf", WIRINGS[name], dtype=dtype)
    plain, kept = (open_model(tmp_path / "model.gguf", keep_blocks=each) for each in (False, True))
    assert kept.card.parameters == plain.card.parameters
    in_blocks = {path: each for path, each in kept.model.named_modules() if isinstance(each, BlockQuantizedLinear)}
    assert len(in_blocks) >= 8
    for path, linear in in_blocks.items():
        exact = plain.model.get_submodule(path)
        assert torch.equal(linear.weight, exact.weight), path
        precision = precision_of_blocks(linear)
        assert precision == f"int{dtype[1]}"
        if is_available(precision):
            x = torch.randn(3, linear.in_features, generator=torch.Generator().manual_seed(1))
            error = pack_linear([linear], precision)(x) - exact(x)
            # The integers are the file's; PyTorch's kernels round scales, inputs and outputs to bf16, the compiled ones
            # inputs to 15 bits.
            assert error.norm() <= (0.01 if kernels_by == "torch" else 1e-4) * exact(x).norm(), path
    ids = TokenBatch(torch.tensor(ROWS))
    view = inference_model(kept.model)
    logits = plain.logits(ROWS)
    assert (view.logits(view.forward(ids)[0]) - logits).abs().max() <= 0.05 * logits.abs().max()
    text = generate(str(tmp_path / "model.gguf"), "ab", max_tokens=3, temperature=0).completions[0]
    assert 1 <= len(text.ids) <= 3


def test_blocks_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "model.gguf", WIRINGS["llama"], dtype="q8_0")
    at = GGUFHeader.read(tmp_path / "model.gguf").tensors["blk.0.attn_q.weight"].start
    raw = bytearray((tmp_path / "model.gguf").read_bytes())
    raw[at : at + 2] = b"\x00\x7e"  # NaN
    (tmp_path / "model.gguf").write_bytes(raw)
    with (
        mock.patch("clearstory.formats.gguf.read.verify_checksum", return_value=False),
        pytest.raises(CorruptFile, match=r"blk.0.attn_q.weight with the value nan"),
    ):
        open_model(tmp_path / "model.gguf", keep_blocks=True)
