"""Where an operation is computed: by fused kernels where its tensors allow, else in plain PyTorch.

`MOLHPFT_KERNELS=reference` turns fused kernels off.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from molhpft.kernels.reference import BondGraph, CSRGraph, Epilogue

VARIABLE = "MOLHPFT_KERNELS"
_SETTINGS = ("auto", "reference")

Gradients = tuple[Tensor | None, ...]

_log = logging.getLogger(__name__)


class Kernels(Protocol):
    """What `cpu.py` and `gpu.py` offer; `cpu.py` documents each function."""

    def convolve(self, x: Tensor, bond: Tensor, root: Tensor, graph: CSRGraph) -> Tensor:
        """One step of OGB's graph convolution."""

    def convolve_backward(
        self, g: Tensor, x: Tensor, bond: Tensor, root: Tensor, graph: CSRGraph
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Its gradients."""

    def propagate(self, x: Tensor, graph: CSRGraph) -> Tensor:
        """Product with the normalised adjacency matrix."""

    def embed_backward(self, g: Tensor, rows: Tensor, length: int) -> Tensor:
        """Gradient of a table whose rows were summed."""

    def moments(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of columns."""

    def activate(self, a: Tensor, factor: Tensor, shift: Tensor, epilogue: Epilogue) -> Tensor:
        """A line for each column, then ReLU and dropout."""

    def activate_sums(
        self, g: Tensor, a: Tensor, factor: Tensor, shift: Tensor, epilogue: Epilogue, mean: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums that the gradient of batch norm needs."""

    def activate_backward(
        self,
        g: Tensor,
        a: Tensor,
        factor: Tensor,
        shift: Tensor,
        epilogue: Epilogue,
        slope: Tensor,
        offset: Tensor,
    ) -> Tensor:
        """Gradient of batch norm, ReLU and dropout."""


def kernels_for(*tensors: Tensor, rows: Tensor | None = None) -> Kernels | None:
    """Fused kernels for these tensors; None where the plain reference has to do.

    Kernels serve float32 on the CPU and, where triton can be imported, on GPUs, and `rows` of nodes
    that autocast has made bfloat16. The reference serves every other dtype and device, PyTorch's
    function transforms (`vmap`, `jvp`, `torch.func.grad`, dual numbers), which kernels cannot look
    into, and everything under `MOLHPFT_KERNELS=reference`.

    Args:
        tensors: must be float32.
        rows: of nodes, float32 or bfloat16.

    Raises:
        ValueError: the environment variable has another value.
    """
    device = tensors[0].device.type
    if _setting() == "reference" or not all(_is_plain(t, device, torch.float32) for t in tensors):
        return None
    if rows is not None and not _is_plain(rows, device, torch.float32, torch.bfloat16):
        return None
    if device == "cpu":
        kernels: Kernels = _cpu()
        return kernels
    return _gpu() if device == "cuda" else None


class DirectedKernels(Protocol):
    """What `cpu.py` alone offers, for messages along directed edges."""

    def bond_states(self, p: Tensor, q: Tensor, graph: BondGraph) -> Tensor:
        """A row of a node and one of a table for each edge."""

    def bond_states_backward(
        self, g: Tensor, kinds: int, graph: BondGraph
    ) -> tuple[Tensor, Tensor]:
        """Their gradients."""

    def messages(self, a: Tensor, graph: BondGraph) -> Tensor:
        """What each edge hears from the edges before it."""

    def messages_backward(self, g: Tensor, a: Tensor, graph: BondGraph) -> Tensor:
        """Its gradient."""

    def arrivals(self, a: Tensor, graph: BondGraph) -> Tensor:
        """What each node hears."""

    def arrivals_backward(self, g: Tensor, a: Tensor, graph: BondGraph) -> Tensor:
        """Its gradient."""


def directed_kernels_for(*tensors: Tensor) -> DirectedKernels | None:
    """Fused kernels for messages along edges; None but for float32 on the CPU, see `kernels_for`.

    Raises:
        ValueError: the environment variable has another value.
    """
    if tensors[0].device.type != "cpu" or kernels_for(*tensors) is None:
        return None
    kernels: DirectedKernels = _cpu()
    return kernels


def collate_kernel(device: torch.device) -> Callable[..., tuple[Tensor, ...]] | None:
    """The compiled `reference.collate` for tensors on a device; None where there is none.

    Raises:
        ValueError: the environment variable has another value.
    """
    if device.type != "cpu" or _setting() == "reference":
        return None
    kernel: Callable[..., tuple[Tensor, ...]] = _cpu().collate
    return kernel


def is_transformed(*tensors: Tensor) -> bool:
    """Whether PyTorch is transforming the computation on these tensors, instead of just doing it.

    The first derivative by `backward` or `autograd.grad` is no such transform; batches of
    gradients (`is_grads_batched`) are.
    """
    return torch._C._are_functorch_transforms_active() or any(
        torch._C._functorch.is_legacy_batchedtensor(t)
        or forward_ad.unpack_dual(t).tangent is not None  # type: ignore[no-untyped-call]
        for t in tensors
    )


def _is_plain(tensor: Tensor, device: str, *dtypes: torch.dtype) -> bool:
    return tensor.dtype in dtypes and tensor.device.type == device and not is_transformed(tensor)


def _setting() -> str:
    value = os.environ.get(VARIABLE, "auto")
    if value not in _SETTINGS:
        raise ValueError(f"{VARIABLE} should be {' or '.join(_SETTINGS)}, got {value!r}")
    return value


@cache
def _cpu() -> Any:
    # where it is first used: numba takes a good part of a second to import
    from molhpft.kernels import cpu

    return cpu


@cache
def _gpu() -> Kernels | None:
    try:
        from molhpft.kernels import gpu
    except ImportError as error:
        _log.warning(
            "graph operations on the GPU are not fused, as triton cannot be imported (%s); "
            "install triton to have them fast",
            error,
        )
        return None
    return gpu


@dataclass(frozen=True, eq=False)
class Operation:
    """A differentiable function of some tensors, in plain PyTorch and fused.

    First derivatives are fused. Derivatives of derivatives (`create_graph`) and batches of
    gradients (`is_grads_batched`) are those of the reference.

    Attributes:
        reference: the tensors to the result in plain PyTorch.
        forward: the same result, fused.
        backward: gradient of the result, which tensors want one (a tuple of bools), and the tensors
            to the gradient of each tensor, fused; of one that wants none it may be None.
    """

    reference: Callable[..., Tensor]
    forward: Callable[..., Tensor]
    backward: Callable[..., Gradients]

    def __call__(self, *tensors: Tensor) -> Tensor:
        """The result, differentiable in `tensors`."""
        result: Tensor = _Fused.apply(self, *tensors)  # type: ignore[no-untyped-call]
        return result


class _Fused(Function):
    @staticmethod
    def forward(ctx: Any, operation: Operation, *tensors: Tensor) -> Tensor:
        ctx.operation = operation
        ctx.save_for_backward(*tensors)
        return operation.forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,), wanted = gradients, ctx.needs_input_grad[1:]
        # gradients are recorded while a backward pass runs only if they are to be differentiated
        if torch.is_grad_enabled() or is_transformed(g):
            return None, *_by_reference(ctx.operation, g, wanted, *ctx.saved_tensors)
        return None, *ctx.operation.backward(g, wanted, *ctx.saved_tensors)


def _by_reference(
    operation: Operation, g: Tensor, wanted: tuple[bool, ...], *tensors: Tensor
) -> Gradients:
    record = torch.is_grad_enabled()
    with torch.enable_grad():
        # without a further derivative, copies cut off the graph that `tensors` came from
        inputs = tensors if record else tuple(t.detach().requires_grad_() for t in tensors)
        result = operation.reference(*inputs).to(g.dtype)
        differentiated = [t for t, want in zip(inputs, wanted, strict=True) if want]
        gradients = iter(torch.autograd.grad(result, differentiated, g, create_graph=record))
    return tuple(next(gradients) if want else None for want in wanted)
