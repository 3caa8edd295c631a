"""The linear layer, with the products that its precision and its input allow."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.kernels import reference
from molhpft.kernels.choice import Kernels
from molhpft.kernels.fused import Gradients, Wanted
from molhpft.kernels.products import inner_product, product


@dataclass(frozen=True)
class Linear:
    """`h weight^T + bias`, differentiable in all three.

    Attributes:
        dtype: what factors of products are rounded to; None leaves them as they are.
    """

    dtype: torch.dtype | None

    def reference(self, *tensors: Tensor) -> Tensor:
        """See `fused.Operation`."""
        h, weight, bias = (_rounded(t, self.dtype) for t in tensors)
        return F.linear(h, weight, bias)

    def forward(self, *tensors: Tensor) -> Tensor:
        """See `fused.Operation`."""
        return product(*(_rounded(t, self.dtype) for t in tensors))

    def backward(self, g: Tensor, wanted: Wanted, *tensors: Tensor) -> Gradients:
        """See `fused.Operation`."""
        h, weight, _ = tensors
        rounded = _rounded(h, self.dtype), _rounded(weight, self.dtype)
        return (
            product(g, rounded[1].T).to(h.dtype) if wanted[0] else None,
            inner_product(g, rounded[0]).to(weight.dtype) if wanted[1] else None,
            g.sum(0, dtype=weight.dtype) if wanted[2] else None,
        )


@dataclass(frozen=True)
class LinearOfSums:
    """`S table weight^T + bias`, differentiable in all three, where `S` sums rows of the table.

    All products are of the table's length: `S (table weight^T)`, and with `S^T g` for a gradient
    `g` of the result `(S^T g) weight` is that of the table and `(S^T g)^T table` of the weight. So
    is the first layer of an encoder, which reads embedded atoms.

    Attributes:
        kernels: for sums of rows.
        dtype: of the result; the products are short, so that there is no need to round factors.
        rows: int64 (n, columns), the numbers of the rows that are summed.
    """

    kernels: Kernels
    dtype: torch.dtype | None
    rows: Tensor

    def reference(self, *tensors: Tensor) -> Tensor:
        """See `fused.Operation`."""
        table, weight, bias = tensors
        return _rounded(F.linear(reference.embed(self.rows, table), weight, bias), self.dtype)

    def forward(self, *tensors: Tensor) -> Tensor:
        """See `fused.Operation`."""
        table, weight, bias = tensors
        sums = F.embedding_bag(self.rows, product(table, weight), mode="sum")
        return _rounded(sums.add_(bias), self.dtype)

    def backward(self, g: Tensor, wanted: Wanted, *tensors: Tensor) -> Gradients:
        """See `fused.Operation`."""
        table, weight, _ = tensors
        sums = self.kernels.embed_backward(g, self.rows, len(table))
        return product(sums, weight.T), inner_product(sums, table), g.sum(0, dtype=weight.dtype)


def _rounded(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype or tensor.dtype)
