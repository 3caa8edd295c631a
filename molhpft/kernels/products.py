"""Products of matrices, in the precision that autocast asks for and by the library that is fastest.

PyTorch's own float32 products on x86 go through MKL, which leaves half the speed of processors
other than Intel's unused; oneDNN, which PyTorch brings too, does not. But it compiles a program
for each shape, which takes a good part of the time of the product itself, and keeps a thousand of
them at more than half a megabyte each. As every batch of graphs has another number of nodes, it is
shown only some of all numbers.

Which rows of a table a tensor is the sums of, for those who can make use of it.

The linear layer, with the products that its precision and its input allow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

from molhpft.kernels import reference
from molhpft.kernels.autograd import Gradients, Wanted
from molhpft.kernels.dispatch import Kernels

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


@dataclass(frozen=True, eq=False)
class Summands:
    """A tensor (n, d) as the sums of rows of a table.

    Attributes:
        rows: int64 (n, columns), the numbers of the rows that are summed.
        table: (length, d).
    """

    rows: Tensor
    table: Tensor


@dataclass(frozen=True, eq=False)
class _Note:
    summands: Summands
    versions: tuple[int, int]


_notes = WeakIdKeyDictionary()  # of tensors that are still in use, and of no others


def note_summands(h: Tensor, summands: Summands) -> None:
    """Remember what `h` is the sums of, for as long as there is `h`."""
    # without a count of changes, nothing would tell whether the note still holds
    if not h.is_inference():
        _notes[h] = _Note(summands, _versions(h, summands))


def summands_of(h: Tensor) -> Summands | None:
    """What `h` is known to be the sums of; None once it or the table was changed in place."""
    note: _Note | None = _notes.get(h)  # type: ignore[no-untyped-call]
    if note is None or note.versions != _versions(h, note.summands):
        return None
    return note.summands


def _versions(h: Tensor, summands: Summands) -> tuple[int, int]:
    return h._version, summands.table._version


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
