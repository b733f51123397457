"""Variants of published folders: keys, weights under other names and chat templates open as in transformers, or say
what is missing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from clearstory.errors import BadInput, CorruptFile
from clearstory.models.prompts import RAW, PromptOptions, encode_prompt
from parity.published_configs import BERT, GPT2, LLAMA, MISTRAL, QWEN3, T5, ConfigJSON
from parity.test_published_folders import assert_equal, outputs, outputs_there, quietly, written

INERT: dict[str, ConfigJSON] = {
    "a window that is switched off": {
        **LLAMA, "sliding_window": 4, "use_sliding_window": False, "max_window_layers": 28,
    },
    "a decoder": {**GPT2, "is_decoder": True, "is_causal": True},
    "an encoder": {**BERT, "is_causal": False},
    "linear scaling with an original context": {
        **LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0, "original_max_position_embeddings": 16},
    },
    "no scaling with a factor": {**MISTRAL, "rope_scaling": {"rope_type": "default", "factor": 2.0, "beta_fast": 32}},
}  # fmt: skip


@pytest.mark.parametrize("name", INERT)
def test_keys_that_change_nothing_are_accepted(name: str, tmp_path: Path) -> None:
    config = INERT[name]
    written(tmp_path, json.loads(json.dumps(config)))
    assert_equal(outputs(quietly(tmp_path)), outputs_there(tmp_path))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({**LLAMA, "is_causal": False}, "is_causal = False"),
        ({**T5, "is_causal": True}, "is_causal = True"),
        ({**BERT, "is_causal": True}, "is_causal = True"),
        ({**LLAMA, "sliding_window": 4}, "sliding_window = 4"),
        ({**LLAMA, "num_key_value_heads": 3}, "num_key_value_heads = 3; it must be a divisor"),
        ({**LLAMA, "model_type": "mistral"}, "model_type 'mistral' and the architecture 'LlamaForCausalLM'"),
        (
            {**QWEN3, "sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1},
            "max_window_layers = 1",
        ),
    ],
)
def test_keys_that_change_the_output_are_named(config: ConfigJSON, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(BadInput) as error:
        quietly(tmp_path)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model-00001-of-00002.safetensors", "no model.safetensors.index.json"),
        ("model.fp16.safetensors", "holds model.fp16.safetensors"),
        ("consolidated.safetensors", "holds consolidated.safetensors"),
        ("tf_model.h5", "holds tf_model.h5, the weights for another framework"),
        ("model.ckpt", "holds model.ckpt, a pickle"),
        ("training_args.bin", "holds no model.safetensors"),
    ],
)
def test_weights_under_another_name_are_named(name: str, says: str, tmp_path: Path) -> None:
    written(tmp_path, dict(LLAMA))
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    with pytest.raises(BadInput, match=says):
        quietly(tmp_path)


def test_shards_open_and_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    weights = written(tmp_path, dict(LLAMA))
    expected = outputs(quietly(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    names = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(weights)}
    for shard in set(names.values()):
        save_file({name: weights[name] for name in weights if names[name] == shard}, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert_equal(outputs(quietly(tmp_path)), expected)
    assert load_file(tmp_path / "model-00001-of-00002.safetensors")
    (tmp_path / "model-00002-of-00002.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    with pytest.raises(CorruptFile, match="Git LFS pointer"):
        quietly(tmp_path)


def chat_folder(folder: Path, template: Any) -> Any:
    """An opened model with chat template `template`."""
    pytest.importorskip("transformers")
    from parity.published_kinds import write_kind

    write_kind(folder, "llama3")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
    return quietly(folder)


def test_a_system_message_is_read_with_an_empty_text(tmp_path: Path) -> None:
    opened = chat_folder(tmp_path, "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}")
    encoded = encode_prompt(opened.model, opened.tokenizer, "", PromptOptions(system="Be brief."))
    assert encoded.chat
    assert opened.tokenizer.decode(list(encoded.ids)[1:]) == "[Be brief.][]"


def test_several_templates_without_a_default_are_named(tmp_path: Path) -> None:
    templates = [{"name": "rag", "template": "x"}, {"name": "tool_use", "template": "y"}]
    opened = chat_folder(tmp_path, templates)
    with pytest.raises(BadInput, match=r"'rag', 'tool_use', but none named 'default'; --raw"):
        encode_prompt(opened.model, opened.tokenizer, "Hello")
    assert encode_prompt(opened.model, opened.tokenizer, "Hello", RAW).ids


def test_a_refused_system_message_can_be_left_out(tmp_path: Path) -> None:
    refuse = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    opened = chat_folder(tmp_path, refuse + "{{ messages[0].content }}")
    with pytest.raises(BadInput, match="no system role; remove the system message"):
        encode_prompt(opened.model, opened.tokenizer, "Hello", PromptOptions(system="Be brief."))
    assert encode_prompt(opened.model, opened.tokenizer, "Hello").chat
