"""What ours is measured beside on a GPU: transformers' GPT-2, and a plain loop that trains it in bf16.

The loop does what nanoGPT's does: random windows from locked memory, autocast, the model's own loss, clipping, fused
AdamW; it looks at its loss every tenth step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def gpt2(config: Any, device: str) -> Any:
    """transformers' GPT-2 in the shape of one of ours, without dropout."""
    warnings.simplefilter("ignore")
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    logging.set_verbosity_error()
    c = config
    shape = GPT2Config(
        vocab_size=c.vocab, n_positions=c.context, n_embd=c.width, n_layer=c.layers, n_head=c.heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(shape).to(device)


def gpt2_step(config: Any, ids: Any, rows: int, context: int, device: str) -> Callable[[], object]:
    """One step of the loop."""
    model = gpt2(config, device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    rng, kind, count = np.random.default_rng(1), torch.device(device).type, [0]

    def step() -> None:
        starts = rng.integers(0, len(ids) - context, rows)
        batch = torch.from_numpy(ids[starts[:, None] + np.arange(context)].astype(np.int64))
        if kind == "cuda":
            batch = batch.pin_memory().to(device, non_blocking=True)
        with torch.autocast(kind, dtype=torch.bfloat16):
            loss = model(batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        count[0] += 1
        if count[0] % 10 == 0:
            float(loss)

    return step
