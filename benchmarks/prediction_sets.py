"""How often prediction sets and intervals hold the truth, over many splits of several data sets.

    python benchmarks/prediction_sets.py --out runs/prediction_sets

Each fit draws a test split, random or by scaffold, and lets the estimators' own hold-out divide the
rest. What the networks say is kept in `--out`, a file a fit, so that a second call refits nothing;
thresholds are then fitted and the table is printed.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molhpft.core.data import Task
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.examples import Molecules, molecule_task
from molhpft.domains.molecules.fingerprints import Neighbours, packed_fingerprints, unpack_bits
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.molecules.splits import random_split, scaffold_groups
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.estimator.calibrate import HeldOut, Uncertainty, fit_uncertainty
from molhpft.estimator.settings import Inference, model_config
from molhpft.estimator.train import train
from molhpft.estimator.validation import holdout_split
from molhpft.measure.uncertainty import interval_widths, prediction_sets, set_thresholds

NAMES = ("ogbg-molfreesolv", "ogbg-molesol", "ogbg-molbace")
KINDS = ("random", "scaffold")
TEST = 0.2
HELD = ("valid", "calibration", "test")
SETTINGS: Mapping[str, Any] = {"encoder": DEFAULT_ENCODER, "tau": (2, 16), "head": "mlp"}
EPOCHS = 3
HOW = {
    "valid": "of validation, which chose",
    "calibration": "of calibration",
    "by similarity": "of calibration, by similarity (what is used)",
}


@dataclass(frozen=True)
class Fit:
    """What the networks of a fit say of the molecules they were not trained on.

    Attributes:
        objective: of the model.
        logits: (n, t) by split.
        targets: (n, t) by split.
        fingerprints: packed fingerprints by split, "train" among them.
    """

    objective: Multilabel | Squared
    logits: dict[str, Tensor]
    targets: dict[str, Tensor]
    fingerprints: dict[str, np.ndarray]


def drawn_test(smiles: tuple[str, ...], kind: str, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to fit on and rows to test on.

    By scaffold, groups of more than half the test size are fitted on, as a rare scaffold is what a
    model meets in use; of the others so many, drawn at random, as make up the test size.
    """
    rng = torch.Generator().manual_seed(seed)
    if kind == "random":
        splits = random_split(len(smiles), rng=rng, fractions=(1 - TEST, 0.0, TEST))
        return splits["train"], splits["test"]
    groups = scaffold_groups(smiles)
    n = sum(map(len, groups))
    test: list[int] = []
    for k in torch.randperm(len(groups), generator=rng).tolist():
        if len(groups[k]) <= TEST * n / 2 and len(test) + len(groups[k]) <= TEST * n:
            test += groups[k]
    rest = sorted({row for group in groups for row in group} - set(test))
    return torch.tensor(rest), torch.tensor(sorted(test))


def fitted(source: Task, kind: str, seed: int) -> Fit:
    """Fit a model to all but a test split, and ask it about all other molecules."""
    molecules = source.examples
    assert isinstance(molecules, Molecules)
    numbers = isinstance(source.objective, Squared)
    labels = source.objective.values(molecules.targets) if numbers else molecules.targets.float()
    fit, test = drawn_test(molecules.smiles, kind, seed)
    inner = holdout_split(
        [molecules.smiles[row] for row in fit.tolist()],
        "random" if kind == "random" else "scaffold",
        validation=0.1,
        seed=seed,
        labels=None if numbers else labels[fit],
    )
    task = molecule_task(
        source.name,
        smiles=molecules.smiles,
        targets=labels.float(),
        target_names=source.target_names,
        splits={**{split: fit[rows] for split, rows in inner.items()}, "test": test},
        objective=Squared() if numbers else Multilabel(),
        standardise=numbers,
    )
    seen = replace(task, splits={split: task.rows(split) for split in ("train", "valid")})
    config = model_config(**SETTINGS, seed=seed, more={"finetune": {"epochs": EPOCHS}})
    with TemporaryDirectory() as folder:
        model, _ = train(config, seen, Path(folder), Inference(members="networks"))
    counts = np.empty((len(molecules.smiles), 0), dtype=np.uint8)  # which networks do not read
    held, targets, fingerprints = {}, {}, {}
    for split, rows in task.splits.items():
        fingerprints[split] = packed_fingerprints([molecules.smiles[row] for row in rows.tolist()])
        if split != "train":
            held[split] = model.mean_logits(task.examples.store, rows, counts)
            targets[split] = task.examples.targets[rows].float()
    return Fit(task.objective, held, targets, fingerprints)


def write(fit: Fit, path: Path) -> None:
    """Write a fit."""
    arrays = {f"logits {s}": a.numpy() for s, a in fit.logits.items()}
    arrays |= {f"targets {s}": y.numpy() for s, y in fit.targets.items()}
    arrays |= {f"prints {s}": p for s, p in fit.fingerprints.items()}
    if isinstance(fit.objective, Squared):
        arrays |= {"mean": np.array(fit.objective.mean), "std": np.array(fit.objective.std)}
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)
    part.rename(path)


def read(path: Path) -> Fit:
    """What `write` wrote."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file}
    objective = (
        Squared(tuple(arrays["mean"].tolist()), tuple(arrays["std"].tolist()))
        if "std" in arrays
        else Multilabel()
    )
    held = [s for s in HELD if f"logits {s}" in arrays]
    logits, targets = (
        {s: torch.from_numpy(arrays[f"{what} {s}"]) for s in held} for what in ("logits", "targets")
    )
    fingerprints = {s: arrays[f"prints {s}"] for s in ("train", *held)}
    return Fit(objective, logits, targets, fingerprints)


def all_fits(out: Path, seeds: int, *, fits: bool) -> Iterator[tuple[str, str, Path]]:
    """Data set, kind of split and file of every fit, made now where it is absent, if at all."""
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for name in NAMES:
            for kind in KINDS:
                path = out / f"{name}-{kind}-{seed}.npz"
                if not path.is_file() and fits:
                    write(fitted(ogb_task(name), kind, seed), path)
                    print(path.name, flush=True)
                if path.is_file():
                    yield name, kind, path


def held_out_of(fit: Fit) -> tuple[dict[str, HeldOut], np.ndarray]:
    """What `fit_uncertainty` is given, and the packed fingerprints of the training molecules."""
    neighbours = Neighbours(unpack_bits(fit.fingerprints["train"]))
    held = {
        split: HeldOut(
            logits, fit.targets[split], neighbours.nearest(unpack_bits(fit.fingerprints[split]))[0]
        )
        for split, logits in fit.logits.items()
    }
    return held, fit.fingerprints["train"]


def limits_of(fit: Fit, how: str, held: Mapping[str, HeldOut], uncertainty: Uncertainty) -> Tensor:
    """Thresholds for the test molecules, near or far, (n, t, 2) or (n, t)."""
    if how == "by similarity":
        steps = len(uncertainty.limits) - 1
        return uncertainty.limits[(held["test"].similarity.double() * steps).round().long()]
    own = held[how]
    fitting = interval_widths if isinstance(fit.objective, Squared) else set_thresholds
    limits = fitting(own.logits, own.targets, target_coverage=uncertainty.target_coverage)
    return limits.expand(len(held["test"].logits), *limits.shape)


def measured(fit: Fit) -> dict[str, tuple[float, ...]]:
    """For each way to fit thresholds, coverage within and outside the domain, size, and fraction.

    The size is the mean width of intervals, or mean number of labels of sets, within the domain;
    the fraction is that of test molecules within the domain.
    """
    held, fingerprints = held_out_of(fit)
    options: dict[str, Any] = {
        "calibration": "none",
        "target_coverage": 0.9,
        "fingerprints": fingerprints,
    }
    uncertainty = fit_uncertainty(held["valid"], held.get("calibration"), fit.objective, **options)
    test = held["test"]
    near = test.similarity >= uncertainty.domain_threshold
    figures = {}
    for how in HOW:
        if how != "by similarity" and how not in held:
            continue
        limits = limits_of(fit, how, held, uncertainty)
        if isinstance(fit.objective, Squared):
            holds = (test.logits - test.targets).abs() <= limits
            sizes = 2 * limits * torch.tensor(fit.objective.std)
        else:
            own = prediction_sets(test.logits, limits)
            holds, sizes = (
                own.gather(2, test.targets.long()[..., None])[..., 0],
                own.sum(2).double(),
            )
        inside, outside = holds[near].double().mean(), holds[~near].double().mean()
        fraction = near.double().mean()
        numbers = (inside, outside, sizes[near].mean(), fraction)
        figures[how] = tuple(number.item() for number in numbers)
    return figures


def table(files: Mapping[tuple[str, str], Sequence[Path]]) -> Iterator[str]:
    """Means over fits, with the standard error of coverage within the domain."""
    columns = (
        "data",
        "split",
        "thresholds",
        "fits",
        "in domain",
        "outside",
        "size",
        "molecules in domain, %",
    )
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for (name, kind), paths in files.items():
        rows = [measured(read(path)) for path in paths]
        for how, label in HOW.items():
            numbers = np.array([row[how] for row in rows if how in row])
            inside, outside, size, fraction = np.nanmean(numbers, axis=0)
            error = numbers[:, 0].std(ddof=1) / np.sqrt(len(numbers))
            cells = (
                f"{100 * inside:.1f} ± {100 * error:.1f}",
                f"{100 * outside:.1f}",
                f"{size:.2f}",
                f"{100 * fraction:.0f}",
            )
            yield f"| {name} | {kind} | {label} | {len(numbers)} | " + " | ".join(cells) + " |"


def main() -> None:
    """Fit what is not fitted yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the fits")
    parser.add_argument("--seeds", type=int, default=20, help="splits of each kind of each set")
    parser.add_argument("--no-fits", action="store_true", help="take those that are there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    files: dict[tuple[str, str], list[Path]] = {(n, k): [] for n in NAMES for k in KINDS}
    for name, kind, path in all_fits(given.out, given.seeds, fits=not given.no_fits):
        files[name, kind].append(path)
    for line in table(files):
        print(line, flush=True)


if __name__ == "__main__":
    main()
