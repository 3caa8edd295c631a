"""Any graphs that torch_geometric holds: its networks as backbones, its data as tasks."""
