"""Networks as chains of stages, objectives, tasks, snapshots: no chemistry, no files, no config."""

from molhpft.core.data import Examples, Rows, Task
from molhpft.core.evaluate import Predictions, Snapshot, predict, take
from molhpft.core.network import (
    Batch,
    Chain,
    Network,
    Plain,
    Stage,
    cosine_head,
    linear_head,
    mlp_head,
)
from molhpft.core.objectives import Multiclass, Multilabel, Objective, Squared

__all__ = [
    "Batch",
    "Chain",
    "Examples",
    "Multiclass",
    "Multilabel",
    "Network",
    "Objective",
    "Plain",
    "Predictions",
    "Rows",
    "Snapshot",
    "Squared",
    "Stage",
    "Task",
    "cosine_head",
    "linear_head",
    "mlp_head",
    "predict",
    "take",
]
