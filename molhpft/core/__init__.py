"""Networks as chains of stages, objectives, tasks, snapshots: no chemistry, no files, no config."""
