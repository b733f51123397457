"""Int8: a view of a model whose linear layers multiply in 8-bit integers. Made when a model is opened, never saved.

Weights are rounded once, with a scale for each output row; inputs are rounded at each call, with a scale for each call
(PyTorch's dynamic quantization, FBGEMM's kernels). A quarter of the memory is read for each token.
"""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import Tensor, nn

from clearstory.errors import CannotDo
from clearstory.models.base import LanguageModel, output_weight
from clearstory.models.decoding_layout import DecodingView


def quantize_int8(model: LanguageModel) -> DecodingView:
    """A view of the model with 8-bit linear layers, the unembedding included; embeddings and norms are unchanged.

    Its numbers differ slightly from the model's: benchmarks/generation.py measures by how much. Raises CannotDo for
    models without output embeddings, for models on a GPU, and where PyTorch has no such kernels.
    """
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        raise CannotDo("this build of torch has no 8-bit kernels for this processor; open the model without --int8")
    weight = output_weight(model)
    if weight is not None and weight.device.type != "cpu":
        raise CannotDo(f"8-bit kernels run on the processor, and the model is on {weight.device}; use --device cpu")
    return DecodingView(model, Int8Linear)


class Int8Linear(nn.Module):
    """A linear layer with 8-bit integer weights and a scale for each output row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.data.float()
        bias = None if linear.bias is None else linear.bias.data.float()
        scales = (weight.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():
            # torch deprecates quantized tensors and has nothing yet that is as fast on a CPU: torchao's int8 is
            # slower than fp32 there. When the kernels go, this file goes.
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor, torch.quantize_per_channel", UserWarning)
            rounded = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        # reduce_range: 7 bits, since without VNNI the kernel's 16-bit sums of two products would overflow.
        return cast(Tensor, torch.ops.quantized.linear_dynamic(x.float(), self.packed, REDUCE_RANGE)).to(x.dtype)


REDUCE_RANGE = not torch.cpu._is_vnni_supported()
"""Whether inputs are rounded to 7 bits instead of 8."""
