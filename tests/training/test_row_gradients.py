"""Gradients of tables that have only the rows of a batch: updates are those of the whole gradient."""

from __future__ import annotations

import torch
from torch import nn

from clearstory.training.optimizers import AdamW, row_gradients


def test_adamw_updates_every_row_as_with_the_whole_gradient() -> None:
    tables = [nn.Embedding(50, 8) for _ in range(2)]
    tables[1].load_state_dict(tables[0].state_dict())
    optimizers = [
        AdamW([{"params": [each.weight], "weight_decay": 0.1}], lr=0.01, betas=(0.9, 0.95), eps=1e-8) for each in tables
    ]
    for step in range(4):
        ids = torch.tensor([[1, 2, 2], [7, 1, step]])
        for number, (table, optimizer) in enumerate(zip(tables, optimizers, strict=True)):
            with row_gradients([table] if number else []):
                for _ in range(2):  # two micro-batches
                    table(ids).square().sum().backward()
            assert table.weight.grad is not None
            assert table.weight.grad.is_sparse == bool(number)
            if number:
                table.weight.grad = table.weight.grad.coalesce()
            optimizer.step()
            optimizer.zero_grad()
        assert not tables[1].sparse
    torch.testing.assert_close(tables[0].weight, tables[1].weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        optimizers[0].state[tables[0].weight]["exp_avg_sq"], optimizers[1].state[tables[1].weight]["exp_avg_sq"]
    )
