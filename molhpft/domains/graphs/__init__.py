"""Any graphs that torch_geometric holds: its networks as backbones, its data as tasks."""

from molhpft.domains.graphs.backbones import gnn_backbone, pyg_backbone
from molhpft.domains.graphs.tasks import concatenated, pyg_task

__all__ = ["concatenated", "gnn_backbone", "pyg_backbone", "pyg_task"]
