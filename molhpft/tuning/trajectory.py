"""Heads along one run of head probing, and what each of them says."""

from copy import deepcopy
from dataclasses import dataclass

from molhpft.core.network import Network
from molhpft.core.snapshot import EVALUATION_SIZE, Snapshot, take
from molhpft.core.task import Task
from molhpft.tuning.checkpoints import Row, Weights
from molhpft.tuning.stack import Stack
from molhpft.tuning.stacked import feature_rows


@dataclass(frozen=True)
class Trajectory:
    """Heads along one run of head probing.

    Attributes:
        heads: tau to the head's weights after tau epochs; none from where training diverged.
        rows: training rows, one an epoch; the loss is NaN from there on.
        diverged: in which epoch and what to do; None where it did not.
    """

    heads: dict[int, Weights]
    rows: list[Row]
    diverged: str | None = None

    def whole(self) -> "Trajectory":
        """The trajectory itself, which has the head of every tau.

        Raises:
            ValueError: training diverged.
        """
        if self.diverged is not None:
            raise ValueError(self.diverged)
        return self

    def snapshots(self, network: Network, task: Task, split: str) -> dict[int, Snapshot]:
        """What the head of each tau says about a split: tau to its snapshot.

        On features a linear head costs one product for all tau together.

        Args:
            network: whose head was probed; left as it is.
            task: that it was probed on.
            split: name of the split.
        """
        if feature_rows(network, task) is None:
            return {t: _snapshot(network, head, task, split) for t, head in self.heads.items()}
        (batch,) = task.batches(split, size=len(task.rows(split)))
        z, y = batch.inputs.cpu(), batch.targets.cpu()
        stack = Stack(network.head, list(self.heads.values()), groups=1)
        logits = stack.forward(batch.inputs[None])[0].mT.cpu()
        return {
            tau: Snapshot(logits=a, targets=y, features=z)
            for tau, a in zip(self.heads, logits, strict=True)
        }


def _snapshot(network: Network, head: Weights, task: Task, split: str) -> Snapshot:
    """Of a copy of the network with the weights `head`."""
    copy = Network(network.backbone, deepcopy(network.head))
    copy.head.load_state_dict(head)
    return take(copy, task.batches(split, size=EVALUATION_SIZE))
