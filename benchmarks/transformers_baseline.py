"""Baseline of the GPU benchmark: GPT-2 of transformers, and a plain bf16 training loop.

The loop follows nanoGPT: random windows from pinned memory, autocast, the model's own loss, gradient clipping, fused
AdamW; the loss is read back every tenth step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def gpt2_model(config: Any, device: str) -> Any:
    """GPT-2 of transformers with the sizes of a clearstory config, without dropout."""
    warnings.simplefilter("ignore")
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    logging.set_verbosity_error()
    gpt2_config = GPT2Config(
        vocab_size=config.vocab, n_positions=config.context, n_embd=config.width, n_layer=config.layers,
        n_head=config.heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(gpt2_config).to(device)


def gpt2_train_step(config: Any, ids: Any, batch_size: int, context: int, device: str) -> Callable[[], object]:
    """A function that takes one training step."""
    model = gpt2_model(config, device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    rng, device_type, steps = np.random.default_rng(1), torch.device(device).type, [0]

    def step() -> None:
        starts = rng.integers(0, len(ids) - context, batch_size)
        batch = torch.from_numpy(ids[starts[:, None] + np.arange(context)].astype(np.int64))
        if device_type == "cuda":
            batch = batch.pin_memory().to(device, non_blocking=True)
        with torch.autocast(device_type, dtype=torch.bfloat16):
            loss = model(batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps[0] += 1
        if steps[0] % 10 == 0:
            float(loss)

    return step
