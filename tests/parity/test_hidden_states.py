"""Hidden states: the recorded residual stream equals the hidden states of transformers, with random parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_bert
import test_encoder_decoders as writers
import test_transformers as decoders
import torch
from torch import Tensor

from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.lens.hooks.activations import record_activations, transformer_stacks
from clearstory.lens.hooks.passage import Passage
from clearstory.lens.hooks.residual_stream import output_stack

IDS = (7, 3, 11, 3, 60, 24, 9, 2, 51)
SOURCE = (5, 6, 7, 8, 9, 10, 11)


@torch.no_grad()
def recorded_streams(model: Any, read: Passage) -> list[list[Tensor]]:
    """For each stack: the embedding output, the stream after each block, and at the end the final norm, if any."""
    with record_activations(model, "**") as seen:
        read.forward(model)
    found = []
    for prefix, stack in transformer_stacks(model):
        names = [f"{prefix}embedding_output", *(f"{prefix}blocks.{layer}" for layer in range(len(stack.blocks)))]
        if stack.norm is not None:
            names[-1] = f"{prefix}norm"
        found.append([seen[name] for name in names])
    return found


def assert_alike(ours: list[Tensor], theirs: tuple[Tensor, ...]) -> None:
    difference = decoders.worst(ours, list(theirs))
    print(f"measured hidden states: {difference:.1e} of the layer's largest")  # shown with -rP
    assert difference < 1e-5


@pytest.mark.parametrize("name", ["gpt2", "llama-grouped-tied", "phi3", "qwen3"])
@torch.no_grad()
def test_a_decoder_has_the_same_residual_stream(name: str, tmp_path: Path) -> None:
    model = decoders.ours(decoders.CASES[name])
    oracle = decoders.theirs(save_model(tmp_path / "model", model, None, ModelCard(name=name)))
    (ours,) = recorded_streams(model, Passage(IDS, ()))
    assert output_stack(model)[0] == ""
    assert_alike(ours, oracle(torch.tensor([IDS]), output_hidden_states=True).hidden_states)


@torch.no_grad()
def test_an_encoder_has_the_same_residual_stream(tmp_path: Path) -> None:
    model = test_bert.ours(replace(test_bert.BERT, pooler=False))
    oracle = test_bert.theirs(save_model(tmp_path / "model", model, None, ModelCard(name="bert")), "BertForMaskedLM")
    segments = tuple(int(place > 4) for place in range(len(IDS)))
    (ours,) = recorded_streams(model, Passage(IDS, (), token_types=segments))
    said = oracle(torch.tensor([IDS]), token_type_ids=torch.tensor([segments]), output_hidden_states=True)
    assert_alike(ours, said.hidden_states)


@pytest.mark.parametrize("name", ["t5", "t5-v1.1", "marian"])
@torch.no_grad()
def test_an_encoder_decoder_has_the_same_residual_streams(name: str, tmp_path: Path) -> None:
    model = writers.ours(writers.CASES[name])
    oracle = writers.theirs(save_model(tmp_path / "model", model, None, ModelCard(name=name)))
    reading, saying = recorded_streams(model, Passage(IDS, (), SOURCE))
    ids = {"input_ids": torch.tensor([SOURCE]), "decoder_input_ids": torch.tensor([IDS])}
    said = oracle(**ids, output_hidden_states=True)
    assert_alike(reading, said.encoder_hidden_states)
    assert_alike(saying, said.decoder_hidden_states)
