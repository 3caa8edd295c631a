"""Products of matrices, in the precision that autocast asks for and by the library that is fastest.

PyTorch's own float32 products on x86 go through MKL, which leaves half the speed of processors
other than Intel's unused; oneDNN, which PyTorch brings too, does not.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def autocast_dtype(device: str) -> torch.dtype | None:
    """Precision of products on `device` ("cpu", "cuda"); None for that of their factors."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """`a b^T + bias`, (n, m), for `a` (n, k), `b` (m, k) and `bias` (m,), in their own dtype."""
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
