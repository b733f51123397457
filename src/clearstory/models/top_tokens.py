"""The most likely tokens of each row of logits, without a distribution over the whole vocabulary in memory."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.models.native.library import load_library


def top_tokens(logits: Float[Tensor, "R V"], count: int) -> tuple[Float[Tensor, "R K"], Int[Tensor, "R K"]]:
    """Log-probabilities of the `count` most likely tokens of each row in float64, in descending order, and their ids;
    NaN for a row with non-finite logits.

    >>> top_tokens(torch.tensor([[1.0, 3.0, 3.0]]).log(), 1)
    (tensor([[-0.8473]], dtype=torch.float64), tensor([[1]]))
    """
    rows, vocab = logits.shape
    count = min(count, vocab)
    library = load_library() if logits.dtype == torch.float32 and logits.device.type == "cpu" else None
    if library is None:
        wide = logits.double()
        totals = wide.logsumexp(-1, keepdim=True)
        values, ids = wide.topk(count)
        logprobs = values - totals
        return logprobs.masked_fill_(~totals.isfinite(), torch.nan), ids
    logits = logits.contiguous()
    values, ids = logits.new_empty(rows, count), torch.empty(rows, count, dtype=torch.long)
    totals = torch.empty(rows, 1, dtype=torch.float64)
    library.top_tokens(
        *(logits.data_ptr(), rows, vocab, count, values.data_ptr(), ids.data_ptr(), totals.data_ptr()),
        torch.get_num_threads(),
    )
    return values.double() - totals, ids
