"""Pretraining configs that differ from a base in one thing, and how well their encoders transfer.

    python benchmarks/ablation.py configs/pretrain/muv_gcn.yaml --set finetune.epochs=3

Every entry of `--changes` is a name and a list of changes. Each is trained by `molhpft run` and its
`model.safetensors` judged as by `encoders.py --quick` on validation rows. A row of a Markdown table
is printed as soon as it is there, in percent relative to the first entry where that is meaningful.
Finished runs and scores are not redone.

Molecules a second are those trained on, over the time from the run's first file to its history,
which includes the scores of each epoch; interrupted runs look slower than they are. The loss is the
training loss of the last epoch: it compares only what has the same targets. ADMET is the geometric
mean over sets of the error's ratio to the base, RMSE or 100 - ROC-AUC: below 1 is better.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from development_sets import (
    ADMET,
    MOLECULEACE,
    DevelopmentSet,
    data_root,
    development_set,
    set_names,
)
from encoders import judged_encoder, scored
from result_store import ResultStore

COLUMNS = (
    "parameters",
    "molecules/s",
    "loss",
    "MoleculeACE RMSE",
    "bace ROC-AUC",
    "ADMET error / base",
)
CHANGES = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class Pretrained:
    """A finished pretraining run.

    Attributes:
        folder: of the run.
        parameters: of encoder and head.
        rate: molecules trained on a second.
        loss: of training, in the last epoch.
    """

    folder: Path
    parameters: int
    rate: float
    loss: float


@dataclass(frozen=True)
class Row:
    """An entry of the ablation with its scores, one a set."""

    name: str
    run: Pretrained
    scores: np.ndarray


def read_changes(path: Path) -> dict[str, list[str]]:
    """Names and changes of a file.

    Raises:
        ValueError: it holds something else.
    """
    changes = yaml.safe_load(path.read_text())
    entries = changes.values() if isinstance(changes, dict) else [None]
    if not all(isinstance(entry, list) and all(map(_is_text, entry)) for entry in entries):
        raise ValueError(
            f"{path} should hold names with lists of changes such as encoder.width=200"
        )
    return dict(changes)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def pretrained(config: Path, changes: Sequence[str], out: Path) -> Pretrained:
    """The run of a config with changes, trained now or before.

    Raises:
        RuntimeError: it has failed; the command has said why on standard error.
    """
    options = [option for change in changes for option in ("--set", change)]
    command = ["molhpft", "run", str(config), "--out", str(out), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}")
    return finished_run(Path(json.loads(done.stdout)["folder"]))


def finished_run(folder: Path) -> Pretrained:
    """What the files of a run say about it.

    Raises:
        ValueError: it took shares of its sources and does not say how many molecules these are.
    """
    summary = json.loads((folder / "summary.json").read_text())
    lines = (folder / "history.jsonl").read_text().splitlines()
    epochs = [row for row in map(json.loads, lines) if row["phase"] == "finetune"]
    begin, end = ((folder / name).stat().st_mtime for name in ("config.yaml", "history.jsonl"))
    size = summary.get("epoch_size")
    if size is None:  # a run of before there was the key
        config = yaml.safe_load((folder / "config.yaml").read_text())
        if config["task"].get("share"):
            raise ValueError(f"{folder} should say its epoch_size; run its config again elsewhere")
        size = summary["sizes"]["train"]
    trained = size * len(epochs)
    rate = trained / max(end - begin, 1e-9)
    return Pretrained(folder, summary["parameters"], rate, epochs[-1]["loss"])


def cells(row: Row, base: Row, sets: Sequence[DevelopmentSet]) -> list[str]:
    """A row of the table, in the order of `COLUMNS`."""
    groups = [data.group for data in sets]
    ace, admet = (np.array([group == name for group in groups]) for name in (MOLECULEACE, ADMET))
    bace = [data.name for data in sets].index("bace")
    errors, base_errors = (_errors(one.scores, sets)[admet] for one in (row, base))
    rmse, base_rmse = row.scores[ace].mean(), base.scores[ace].mean()
    auc, base_auc = row.scores[bace], base.scores[bace]
    values = [
        (f"{row.run.parameters:,}", row.run.parameters / base.run.parameters),
        (f"{row.run.rate:,.0f}", row.run.rate / base.run.rate),
        (f"{row.run.loss:.4f}", row.run.loss / base.run.loss),
        (f"{rmse:.4f}", rmse / base_rmse),
    ]
    texts = [text if row is base else f"{text} ({ratio - 1:+.1%})" for text, ratio in values]
    texts.append(f"{auc:.2f}" if row is base else f"{auc:.2f} ({auc - base_auc:+.2f})")
    return [*texts, f"{np.exp(np.log(errors / base_errors).mean()):.4f}"]


def _errors(scores: np.ndarray, sets: Sequence[DevelopmentSet]) -> np.ndarray:
    """Lower is better: RMSE, and what ROC-AUC lacks to 100."""
    return np.where([data.classes for data in sets], 100 - scores, scores)


def line(name: str, texts: Sequence[str]) -> str:
    """A row of Markdown."""
    return f"| {name} | {' | '.join(texts)} |"


def ablate(
    config: Path,
    entries: Mapping[str, Sequence[str]],
    *,
    out: Path,
    sets: Sequence[DevelopmentSet],
    store: ResultStore,
) -> list[str]:
    """Print the table row by row; gives a sentence for each entry that has failed.

    Raises:
        RuntimeError: the first entry has failed: there is nothing to compare with.
    """
    print(line("", COLUMNS), "|---" * (1 + len(COLUMNS)) + "|", sep="\n", flush=True)
    base, failures = None, []
    for name, changes in entries.items():
        try:
            run = pretrained(config, changes, out)
        except RuntimeError as error:
            if base is None:
                raise
            failures.append(f"{name} has failed: {error}")
            continue
        judged = replace(judged_encoder(str(run.folder / "model.safetensors")), name=name)
        row = Row(name, run, scored([judged], sets, store)[1][0].mean(0))
        base = base or row
        print(line(name, cells(row, base, sets)), flush=True)
    return failures


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; exit status 1 where an entry has failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path, help="of the base")
    parser.add_argument("--changes", type=Path, default=CHANGES)
    parser.add_argument("--only", nargs="+", help="names of entries; the first one is always run")
    parser.add_argument("--set", action="append", default=[], help="a change of all entries")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--data", type=Path, default=data_root())
    parser.add_argument("--store", type=Path, default=Path("runs/encoders.jsonl"))
    given = parser.parse_args(arguments)
    entries = read_changes(given.changes)
    unknown = set(given.only or ()) - set(entries)
    if unknown:
        parser.error(f"--only names {sorted(unknown)}, which {given.changes} does not have")
    chosen = {
        name: [*given.set, *changes]
        for k, (name, changes) in enumerate(entries.items())
        if not k or not given.only or name in given.only
    }
    names = set_names(given.data, quick=True)
    sets = [development_set(given.data, name, "valid", quick=True) for name in names]
    failures = ablate(
        given.config, chosen, out=given.out, sets=sets, store=ResultStore(given.store)
    )
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
