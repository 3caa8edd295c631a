"""Energy and what happened to the features, as pure functions of snapshots; nothing here trains."""
