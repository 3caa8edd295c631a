"""Chains and rings: a table that a small network learns in a second."""

SMILES = [s for n in range(3, 33) for s in ("C" * n + "O", "C1" + "C" * n + "1N")]
RING = [k % 2 for k in range(len(SMILES))]
SIZE = [float(n + 1 + k) for n in range(3, 33) for k in (0, 1)]
BRIEF = {
    "encoder": {"name": "gcn", "layers": 2, "width": 8, "dropout": 0.2},
    "tau": (0, 2, 5),
    "split": "random",
    "validation": 0.3,
    "config": {
        "finetune": {"epochs": 8, "lr": 0.02, "batch_size": 16, "keep": "best"},
        "probe": {"lr": 0.01},
    },
}
CHANGES = (
    "encoder={name: gcn, layers: 2, width: 8, dropout: 0.2}",
    "finetune={epochs: 8, lr: 0.02, batch_size: 16, keep: best}",
    "probe={lr: 0.01}",
)


def write_table(path, *, target="ring", values=RING, smiles=SMILES):
    rows = [f"{s},{v}" for s, v in zip(smiles, values, strict=True)]
    path.write_text("\n".join([f"smiles,{target}", *rows]) + "\n")
    return path
