"""The linear layer, with the products that its precision and its input allow."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.kernels.choice import Kernels
from molhpft.kernels.fused import Gradients, Wanted
from molhpft.kernels.products import inner_product, product
from molhpft.kernels.summands import Summands

# so many times more sums than rows in the table, and their products are worth going round
_WORTH = 4


@dataclass(frozen=True)
class Linear:
    """`h weight^T + bias`, differentiable in all three.

    Where `h` is the sums of few rows of a table, `h = S table`, two of three products shrink to
    the length of the table: `h weight^T = S (table weight^T)`, and the gradient of the weight is
    `(S^T g)^T table`. That is so for the first layer of an encoder, which reads embedded atoms.

    Attributes:
        kernels: for sums of rows.
        dtype: what factors of products are rounded to; None leaves them as they are.
        summands: what `h` is the sums of, if that is known.
    """

    kernels: Kernels
    dtype: torch.dtype | None
    summands: Summands | None

    def reference(self, *tensors: Tensor) -> Tensor:
        """See `fused.Operation`."""
        h, weight, bias = (self._rounded(t) for t in tensors)
        return F.linear(h, weight, bias)

    def forward(self, *tensors: Tensor) -> Tensor:
        """See `fused.Operation`."""
        h, weight, bias = tensors
        if (few := self._few(h)) is None:
            return product(*(self._rounded(t) for t in tensors))
        # short, so that there is no need to round
        sums = F.embedding_bag(few.rows, product(few.table, weight), mode="sum")
        return self._rounded(sums.add_(bias))

    def backward(self, g: Tensor, wanted: Wanted, *tensors: Tensor) -> Gradients:
        """See `fused.Operation`."""
        h, weight, _ = tensors
        return (
            product(g, self._rounded(weight).T).to(h.dtype) if wanted[0] else None,
            self._of_weight(g, h).to(weight.dtype) if wanted[1] else None,
            g.sum(0, dtype=weight.dtype) if wanted[2] else None,
        )

    def _of_weight(self, g: Tensor, h: Tensor) -> Tensor:
        if (few := self._few(h)) is None:
            return inner_product(g, self._rounded(h))
        sums = self.kernels.embed_backward(g, few.rows, len(few.table))
        return inner_product(sums, few.table)

    def _few(self, h: Tensor) -> Summands | None:
        found = self.summands
        return found if found and len(h) >= _WORTH * len(found.table) else None

    def _rounded(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype or tensor.dtype)
