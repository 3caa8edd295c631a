"""Run folders with numbers of one's choice, written by the writer that runs use."""

import json
from zlib import crc32

from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.run.auto_tau import ProbeCurve
from molhpft.run.folder import MANIFEST, RunFolder, file_sizes, manifest_of
from molhpft.run.identity import FORMAT

SMALL = {
    "task": {"name": "csv", "target_columns": ["ring"]},
    "encoder": {"name": "gcn", "layers": 2, "width": 8, "dropout": 0.2},
    "method": {"name": "hp_ft", "tau": [0, 2, 5]},
    "probe": {"lr": 0.01},
    "finetune": {"epochs": 3, "lr": 0.003, "keep": "best", "batch_size": 16},
}
FLYP = {"name": "flyp", "pretraining": "sizes", "tau": [0, 1]}
SHIFT = {"distance": 1.0, "cosine": 0.5, "dot": 2.0, "norm": 2.0, "start_norm": 1.5}


def task_of(config):
    return build_task(config, build_recipes(config)[0])


def network_of(config):
    return build_network(config, task_of(config), build_recipes(config)[0])


def branch(tau, valid, test, **more):
    energy = {"aie": 1 / (1 + (tau or 0)), "per_entry": 0.4, "balanced": None}
    probe = {"train": 0.5, "valid": valid - 0.1, "test": None if test is None else test - 0.1}
    final = {"train": 0.9, "valid": valid, "test": test}
    return {"tau": tau, "energy": energy, "probe": probe, "final": final, "shift": SHIFT, **more}


def rewrite(path, name, text):
    """Write a file of a finished run anew, as the run would have."""
    (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (path / MANIFEST).write_text(manifest_of(file_sizes(path)))


def measure(path, measures, along=None):
    """Further measures in a run that is written.

    Args:
        path: of the run.
        measures: tau to what a branch has under `measures`.
        along: tau to what each epoch of its finetuning has, epoch by epoch.
    """
    summary = json.loads((path / "summary.json").read_text())
    for row in summary["branches"]:
        row["measures"] = measures.get(row["tau"], {})
    rewrite(path, "summary.json", json.dumps(summary))
    lines = [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]
    for line in lines:
        if line["phase"] == "finetune" and along:
            line |= along[line["tau"]][line["epoch"] - 1]
    rewrite(path, "history.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return path


def history(taus, epochs):
    probe = [
        {"phase": "probe", "epoch": k + 1, "loss": 0.7}
        for k in range(max(tau or 0 for tau in taus))
    ]
    tuned = [
        {"phase": "finetune", "tau": tau, "epoch": k + 1, "loss": 0.5, "valid": 0.6}
        for tau in taus
        for k in range(epochs)
    ]
    return [*probe, *tuned]


def write_run(
    root,
    scores,
    *,
    method="hp_ft",
    seed=0,
    task="rings",
    data=None,
    digest=None,
    epochs=3,
    spent=None,
    auxiliary=None,
    **config,
):
    """A run of `method` whose branches score as `scores` says: tau to (valid, test).

    A third of a branch has the scores of shifted splits by their names.

    With `spent` its tau was chosen by `tau: auto`, which took so many epochs. `data` is the
    fingerprint of the task, by default one of its name and options, and `digest` that of the
    weights, by default one of their path; `auxiliary` is that of the pretraining task that a run
    goes on serving.
    """
    sections = {key: config.pop(key, {}) for key in ("task_options", "encoder", "head", "finetune")}
    encoder = {"name": "gcn", "weights": "w.pth", **sections["encoder"]}
    taus = list(scores) if spent is None else "auto"
    written = {
        "task": {"name": task, **sections["task_options"]},
        "encoder": encoder,
        "head": {"name": "linear", **sections["head"]},
        "method": {"name": method, **({"tau": taus} if method == "hp_ft" else {})},
        "finetune": {"epochs": epochs, "lr": 0.001, **sections["finetune"]},
        "seed": seed,
        "cut": None,
        **config,
    }
    branches = []
    for tau, (valid, test, *shifted) in scores.items():
        row = branch(tau, valid, test)
        branches.append({**row, "final": {**row["final"], **(shifted[0] if shifted else {})}})
    name = f"{task}-{method}-{seed}-{crc32(repr(written).encode())}"
    folder = RunFolder(root / name)
    made_up = f"{crc32(repr([task, sections['task_options']]).encode()):08x}"
    folder.open()
    folder.write_yaml("config.yaml", written)
    folder.write_lines("history.jsonl", history(list(scores), epochs))
    summary = {
        "format": FORMAT,
        "task": task,
        "fingerprint": data or made_up,
        "encoder": encoder["name"],
        "weights": encoder["weights"] or "none (random)",
        "weights_digest": digest or (encoder["weights"] and f"digest of {encoder['weights']}"),
        "method": method,
        "metric": "rocauc",
        "seed": seed,
        "chosen_tau": max(scores, key=lambda tau: scores[tau][0]),
        "branches": branches,
    }
    folder.write_json("summary.json", summary | ({"auxiliary": auxiliary} if auxiliary else {}))
    if spent is not None:
        folder.write_json("choice.json", {"spent": spent})
    folder.close()
    return folder.path


def files_of(folder):
    """Every file of a finished run by its path in the folder, as bytes."""
    return {name: (folder.path / name).read_bytes() for name in file_sizes(folder.path)}


def rows_of(folder):
    return folder.read_json("summary.json")["branches"]


def curve(*, metric="accuracy", left=0.3, train=0.8, valid=0.7, halfway=1.0):
    """A probe whose energy falls from 1 to `left` and whose scores rise to `train` by tau 10."""
    energies = {0: 1.0, 1: (1 + left) / 2, 5: halfway * left, 10: left}
    rows = {
        tau: {"aie": energies[tau], "train": part * train, "valid": valid}
        for tau, part in ((0, 0.5), (1, 0.7), (10, 1.0))
    }
    return ProbeCurve(metric, energies, rows)


def fast_curve(**numbers):
    """As `curve`, with the last training score from tau 1 on."""
    probed = curve(**numbers)
    probed.rows[1]["train"] = probed.rows[10]["train"]
    return probed
