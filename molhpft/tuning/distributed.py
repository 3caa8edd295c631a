"""Where and how precisely a network is trained, and how many processes share each batch."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from molhpft.core.annotations import Float, Shaped
from molhpft.core.network import Batch, Network
from molhpft.kernels.batch_norm import shared_rows

if TYPE_CHECKING:  # it takes half a second to import, and many trainings do without
    from lightning_fabric import Fabric

T = TypeVar("T")


@dataclass(frozen=True)
class Machine:
    """What trains a network: this process in the weights' own precision, or a launched Fabric.

    With several processes each batch is shared out by rows. Every process computes the loss of the
    whole batch from the logits of all, so losses that couple rows or average over present labels
    are those of one process, and so are the gradients, which DistributedDataParallel sums up.

    Attributes:
        fabric: Lightning Fabric, launched; None for this process alone.
        device: where this process computes.
        mixed: whether products are of bfloat16, with sums in float32.
    """

    fabric: "Fabric | None" = None
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable
    mixed: bool = False

    @property
    def processes(self) -> int:
        """How many share a batch."""
        return self.fabric.world_size if self.fabric else 1

    @property
    def rank(self) -> int:
        """Number of this process, from 0; the first one writes files."""
        return self.fabric.global_rank if self.fabric else 0

    def autocast(self) -> AbstractContextManager[Any]:
        """A context in which products have the machine's precision."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.mixed else nullcontext()

    def shared(self, network: Network) -> Callable[[Batch], Tensor]:
        """The network as a function of this process's share of a batch to float32 logits."""
        several = self.fabric is not None and self.processes > 1
        module = self.fabric.strategy.setup_module(network) if self.fabric and several else network

        def logits(batch: Batch) -> Tensor:
            with self.autocast(), shared_rows() if several else nullcontext():
                result: Tensor = module(batch)
            return result.float()

        return logits

    def whole(self, rows: Shaped[Tensor, "rows ..."], total: int) -> Shaped[Tensor, "{total} ..."]:
        """Rows of all processes, (total, ...), from this one's share of a batch.

        Gradients reach this process's own rows, times the number of processes: averaging the
        gradients of all gives that of the whole.
        """
        if self.processes == 1:
            return rows
        sizes = [total // self.processes + (r < total % self.processes) for r in self.ranks]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        gathered = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(gathered, padded)
        parts = [part[:size] for part, size in zip(gathered, sizes, strict=True)]
        parts[self.rank] = rows
        if rows.requires_grad:
            rows.register_hook(lambda g: g * self.processes)  # type: ignore[no-untyped-call]
        return torch.cat(parts)

    @property
    def ranks(self) -> range:
        """Numbers of all processes."""
        return range(self.processes)

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Gradients of a loss, those of all processes in each."""
        if self.fabric:
            self.fabric.backward(loss)
        else:
            torch.autograd.backward(loss)

    def agreed(self, value: T) -> T:
        """The value that the first process has, in all of them."""
        return self.fabric.broadcast(value) if self.fabric else value

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """A block that the first process runs alone and the others after it.

        The others then find in the cache what it left there.
        """
        if self.rank:
            self.wait()
        yield
        if not self.rank:
            self.wait()

    def wait(self) -> None:
        """Until every process is here."""
        if self.fabric:
            self.fabric.barrier()


ALONE = Machine()
