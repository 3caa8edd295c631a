"""Products of matrices, in the precision that autocast asks for and by the library that is fastest.

PyTorch's own float32 products on x86 go through MKL, which leaves half the speed of processors
other than Intel's unused; oneDNN, which PyTorch brings too, does not. But it compiles a program
for each shape, which takes a good part of the time of the product itself, and keeps a thousand of
them at more than half a megabyte each. As every batch of graphs has another number of nodes, it is
shown only some of all numbers.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_STEP = 32  # numbers of nodes that oneDNN is shown are multiples of it, or below it


def autocast_dtype(device: str) -> torch.dtype | None:
    """Precision of products on `device` ("cpu", "cuda"); None for that of their factors."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """`a b^T + bias`, (n, m), for `a` (n, k), `b` (m, k) and `bias` (m,), in their own dtype."""
    missing = -len(a) % _STEP
    if len(a) < _STEP or not missing or a.device.type != "cpu":
        return _product(a, b, bias)
    return _product(F.pad(a, (0, 0, 0, missing)), b, bias)[: len(a)]


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """`a^T b`, (k, m), for `a` (n, k) and `b` (n, m), in their own dtype or float32."""
    even = len(a) // _STEP * _STEP if a.device.type == "cpu" else len(a)
    whole = _product(a[:even].T, b[:even].T) if even else a.new_zeros(a.shape[1], b.shape[1])
    if even == len(a):
        return whole
    return torch.addmm(whole.float(), a[even:].float().T, b[even:].float())


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    onednn = _onednn()
    if onednn and a.dtype == torch.float32 and a.device.type == "cpu" and a.numel() and b.numel():
        result: Tensor = onednn(a, b, bias, "none", [], "")
        return result
    return F.linear(a, b, bias)


@cache
def _onednn() -> Callable[..., Any] | None:
    # no function of PyTorch's that is documented multiplies float32 by oneDNN
    if torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return None
