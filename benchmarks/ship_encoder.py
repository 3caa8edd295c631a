"""Write the encoder of a finished pretraining run as a shipped encoder: weights and model card.

    python benchmarks/ship_encoder.py RUN --config configs/pretrain/muv_gcn.yaml --name gcn_muv

RUN is the run folder; `--public` takes a file of pretrain-gnns to compare with.

The card is printed from the run folder, a leak check by InChIKey, and linear probes of the encoder,
of the same one with random weights, and of a public one of pretrain-gnns; the probes are runs of
their own, and are not redone. MOLHPFT_DATA must hold the data sets that are probed.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from run_configs import split_header
from safetensors.torch import save_file

from molhpft.config.build import build_recipes, build_task
from molhpft.config.changes import read_config
from molhpft.config.schema import RunConfig, load_config, parse_config, resolved
from molhpft.core.data import Task
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.molecules.overlap import inchikey_blocks, is_among
from molhpft.domains.shipped import SHIPPED
from molhpft.domains.weights import ABOUT, read_weights
from molhpft.run.folder import RunFolder
from molhpft.run.run import run

AGAINST = ("ogbg-moltox21", "ogbg-molhiv")
PREFIX = "backbone."


@dataclass(frozen=True)
class Source:
    """A finished pretraining run and the config that it was run by."""

    folder: RunFolder
    config: RunConfig
    path: Path


def read_source(folder: Path, path: Path) -> Source:
    """The run, if it is complete and that config's.

    Raises:
        ValueError: it is not.
    """
    run_folder = RunFolder(folder)
    if not run_folder.is_complete:
        raise ValueError(f"{folder} should be a finished run; it has no summary.json")
    config = load_config(path)
    # a run of an earlier version wrote down what did nothing in it
    written = parse_config(read_config(folder / "config.yaml"), unused_are="dropped")
    ran = replace(written, checkpoint=config.checkpoint)
    if resolved(ran) != resolved(config):
        raise ValueError(f"{folder} should be a run of {path}; its config.yaml says otherwise")
    return Source(run_folder, config, path)


def write_encoder(source: Source, file: Path) -> int:
    """The encoder's weights alone, with what it is; gives the number of its parameters."""
    saved = read_weights(source.folder.path / "model.safetensors")
    tensors = {k: v.contiguous() for k, v in saved.tensors.items() if k.startswith(PREFIX)}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, metadata={ABOUT: json.dumps(saved.about)})
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return sum(v.numel() for k, v in tensors.items() if not k.endswith(buffers))


def training_blocks(config: RunConfig, **changes: Any) -> NDArray[np.bytes_]:
    """InChIKey blocks of the molecules that a config trains on, with other options of the task."""
    task = replace(config.task, options={**config.task.options, **changes})
    return split_blocks(build_task(replace(config, task=task), build_recipes(config)[0]), "train")


def split_blocks(task: Task, split: str) -> NDArray[np.bytes_]:
    """InChIKey blocks of the molecules of a split."""
    return inchikey_blocks(task.examples.smiles)[task.rows(split).numpy()]


def leak_table(config: RunConfig, against: Sequence[str]) -> list[str]:
    """Markdown: how many molecules of each split were trained on, and how many would have been."""
    used, everything = training_blocks(config), training_blocks(config, without=())
    lines = ["| data set | split | molecules | trained on | without leaving any out |", "|---" * 5]
    lines[1] += "|"
    for name in against:
        task = ogb_task(name)
        for split in task.splits:
            theirs = split_blocks(task, split)
            counts = [int(is_among(theirs, ours).sum()) for ours in (used, everything)]
            lines.append(f"| {name} | {split} | {len(theirs):,} | {counts[0]:,} | {counts[1]:,} |")
    return lines


def probe_table(
    config: RunConfig, encoder: Path, public: Path | None, against: Sequence[str], out: Path
) -> list[str]:
    """Markdown: solved linear probes, validation and test in percent."""
    ours = {"name": config.encoder.name, **config.encoder.options}
    tried = {
        "this encoder": {**ours, "weights": str(encoder)},
        "the same, random weights": {**ours, "weights": None},
    }
    if public is not None:
        tried[public.name] = {"name": "gcn_pretrain_gnns", "weights": str(public)}
    lines = ["| encoder | " + " | ".join(f"{n} valid | {n} test" for n in against) + " |"]
    lines.append("|---" * (1 + 2 * len(against)) + "|")
    for what, settings in tried.items():
        cells = []
        for name in against:
            raw = {"task": name, "encoder": settings, "method": "lp_logistic"}
            row = run(parse_config(raw), out).read_json("summary.json")["branches"][0]["final"]
            cells += [f"{100 * row[split]:.2f}" for split in ("valid", "test")]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return lines


def loss_table(folder: RunFolder) -> list[str]:
    """Markdown: losses of the first, the best and the last epoch."""
    text = (folder.path / "history.jsonl").read_text()
    rows = [row for row in map(json.loads, text.splitlines()) if row["phase"] == "finetune"]
    best = max(rows, key=lambda row: row["valid"])
    lines = ["| epoch | training loss | validation loss |", "|---|---|---|"]
    for what, row in (("first", rows[0]), ("best", best), ("last", rows[-1])):
        lines.append(f"| {row['epoch']} ({what}) | {row['loss']:.4f} | {-row['valid']:.4f} |")
    return lines


def minutes(folder: RunFolder) -> float:
    """Between the first file of a run and its last."""
    first, last = (folder.path / name for name in ("config.yaml", "summary.json"))
    return (last.stat().st_mtime - first.stat().st_mtime) / 60


def card(
    source: Source, file: Path, parameters: int, *, leaks: Sequence[str], probes: Sequence[str]
) -> str:
    """The model card, as Markdown."""
    summary, options = source.folder.read_json("summary.json"), source.config.task.options
    _, command, _ = split_header(source.path.read_text())
    build = {k: v for k, v in source.config.encoder.options.items() if k != "weights"}
    left = ", ".join(options["without"]) or "none"
    what = [
        f"# {file.stem}",
        "",
        f"Encoder `{source.config.encoder.name}` "
        f"({', '.join(f'{k} {v}' for k, v in build.items())}; {parameters:,} parameters, float32), "
        f"pretrained by `{source.path}`.",
        "",
        f"Use: `encoder: {{name: {source.config.encoder.name}, weights: {file.stem}}}`.",
        "",
        f"sha256: `{hashlib.sha256(file.read_bytes()).hexdigest()}`",
        "",
        "## Data",
        "",
        f"`{options['of']}`, {'its training split' if options['use'] == 'train' else 'all of it'}: "
        f"{summary['sizes']['train']:,} molecules, {summary['outputs']} targets "
        f"({' and '.join(options['targets'])}). Epoch: that of least loss on "
        f"{summary['sizes']['valid']:,} validation molecules. Left out of pretraining: molecules "
        f"that these sets validate or test on: {left}.",
        "",
        "Molecules of the sets probed below that were trained on, by the first block of the "
        "InChIKey (connectivity) of the largest fragment:",
        "",
    ]
    training = ["", "## Training", "", "```bash", command, "```", ""]
    took = f"{minutes(source.folder):.0f} minutes from the first file of the run to its last. Loss:"
    scores = "Linear probes (`method: lp_logistic`, penalty chosen on validation), ROC-AUC in %:"
    after = [took, "", *loss_table(source.folder), "", "## Probes", "", scores, "", *probes, ""]
    return "\n".join([*what, *leaks, *training, *after])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--public", type=Path)
    parser.add_argument("--against", nargs="+", default=AGAINST)
    parser.add_argument("--probes", type=Path, default=Path("runs/probes"))
    parser.add_argument("--out", type=Path, default=SHIPPED)
    given = parser.parse_args(arguments)
    source, file = read_source(given.run, given.config), given.out / f"{given.name}.safetensors"
    parameters = write_encoder(source, file)
    leaks = leak_table(source.config, given.against)
    probes = probe_table(source.config, file, given.public, given.against, given.probes)
    text = card(source, file, parameters, leaks=leaks, probes=probes)
    file.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
