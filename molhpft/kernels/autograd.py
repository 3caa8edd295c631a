"""Operations with a fused forward and a fused backward pass, as PyTorch's autograd sees them."""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from molhpft.kernels.dispatch import is_transformed

Gradients = tuple[Tensor | None, ...]
Wanted = tuple[bool, ...]


class Operation(Protocol):
    """A differentiable function of some tensors, in plain PyTorch and fused."""

    def reference(self, *tensors: Tensor) -> Tensor:
        """The result in plain PyTorch, which can be differentiated in any way and any often."""

    def forward(self, *tensors: Tensor) -> Tensor:
        """The same result, fused."""

    def backward(self, g: Tensor, wanted: Wanted, *tensors: Tensor) -> Gradients:
        """Gradient of each tensor for the gradient `g` of the result, fused.

        Those that are not wanted may be None.
        """


def apply(operation: Operation, *tensors: Tensor) -> Tensor:
    """The operation's result, differentiable in `tensors`.

    First derivatives are fused. Derivatives of derivatives (`create_graph`) and batches of
    gradients (`is_grads_batched`) are those of the reference.
    """
    result: Tensor = _Fused.apply(operation, *tensors)  # type: ignore[no-untyped-call]
    return result


class _Fused(Function):
    @staticmethod
    def forward(ctx: Any, operation: Operation, *tensors: Tensor) -> Tensor:
        ctx.operation = operation
        ctx.save_for_backward(*tensors)
        return operation.forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,), operation = gradients, ctx.operation
        # gradients are recorded while a backward pass runs only if they are to be differentiated
        wanted = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() or is_transformed(g):
            return None, *_by_reference(operation, g, wanted, *ctx.saved_tensors)
        return None, *operation.backward(g, wanted, *ctx.saved_tensors)


def _by_reference(operation: Operation, g: Tensor, wanted: Wanted, *tensors: Tensor) -> Gradients:
    record = torch.is_grad_enabled()
    with torch.enable_grad():
        # without a further derivative, copies cut off the graph that `tensors` came from
        inputs = tensors if record else tuple(t.detach().requires_grad_() for t in tensors)
        result = operation.reference(*inputs).to(g.dtype)
        chosen = [t for t, want in zip(inputs, wanted, strict=True) if want]
        found = iter(torch.autograd.grad(result, chosen, g, create_graph=record))
    return tuple(next(found) if want else None for want in wanted)
