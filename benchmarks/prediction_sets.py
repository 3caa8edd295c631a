"""How often prediction sets and intervals hold the truth, over many random splits of several sets.

    python benchmarks/prediction_sets.py --out runs/prediction_sets
    python benchmarks/prediction_sets.py --out runs/all --members all --seeds 3 --sets esol

Each fit draws a fifth of the molecules as a test split and makes a model of the others as
`molhpft finetune` does, by five folds. What the members say is kept in `--out`, a file a fit and
its settings, so that a second call refits nothing until a default changes; thresholds are then
fitted and the tables are printed.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import torch
from development_sets import data_root, development_set
from estimators import identity
from torch import Tensor

from molhpft.core.data import Task
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.files import digest
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.fingerprints import packed_fingerprints
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.molecules.smiles import FEATURISER_VERSION
from molhpft.domains.molecules.splits import random_split
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.domains.weights import weight_file
from molhpft.estimator.calibrate import Uncertainty, fit_uncertainty
from molhpft.estimator.held_out import HeldOut
from molhpft.estimator.settings import Inference, Members, model_config
from molhpft.estimator.train import train
from molhpft.estimator.validation import FOLDS, draw_folds
from molhpft.measure.uncertainty import interval_widths, log_loss

SETS = ("freesolv", "esol", "caco2", "CHEMBL4203_Ki", "bace", "bioavailability")
NUMBERS = ("freesolv", "esol")  # of OGB, in the unit of the set
TEST = 0.2
TARGET = 0.9
THIRDS = ("narrow", "middle", "wide")


@dataclass(frozen=True)
class Fit:
    """What the members of a model say of the molecules that they were not trained on.

    Attributes:
        objective: of the model.
        held: "valid", the molecules of all folds, and "test".
        fingerprints: of the training molecules, packed.
    """

    objective: Multilabel | Squared
    held: dict[str, HeldOut]
    fingerprints: np.ndarray

    @property
    def classes(self) -> bool:
        """Whether labels are 0 and 1."""
        return not isinstance(self.objective, Squared)


def molecules_and_labels(name: str) -> tuple[tuple[str, ...], Tensor, bool]:
    """SMILES, labels (n, 1), and whether these are classes."""
    if name in NUMBERS:
        source = ogb_task(f"ogbg-mol{name}")
        return source.examples.smiles, source.objective.values(source.examples.targets), False
    data = development_set(data_root(), name, "valid")
    return tuple(data.smiles), torch.tensor(data.labels), data.classes


def drawn_task(name: str, seed: int) -> Task:
    """A task with all but a random fifth of the molecules to train on."""
    smiles, labels, classes = molecules_and_labels(name)
    splits = random_split(
        len(smiles),
        rng=torch.Generator().manual_seed(seed),
        fractions=(1 - TEST, 0.0, TEST),
        labels=labels if classes else None,
    )
    return molecule_task(
        name,
        smiles=smiles,
        targets=labels.float(),
        target_names=("label",),
        splits={split: splits[split] for split in ("train", "test")},
        objective=Multilabel() if classes else Squared(),
        standardise=not classes,
    )


def fitted(name: str, seed: int, members: Members) -> Fit:
    """Fit a model to all but a test split, and ask it about all molecules in turn."""
    task = drawn_task(name, seed)
    folds = draw_folds(task, "random", count=FOLDS, seed=seed)
    config = model_config(seed=seed, more={})
    with TemporaryDirectory() as folder:
        model, _ = train(config, task, Path(folder), Inference(members=members), folds=folds)
    assert model.held_out is not None
    return Fit(
        model.spec.objective,
        dict(model.held_out.splits),
        packed_fingerprints(model.training_smiles),
    )


def write(fit: Fit, path: Path) -> None:
    """Write a fit."""
    arrays = {
        f"{split} {key}": value.numpy()
        for split, held in fit.held.items()
        for key, value in vars(held).items()
        if value is not None
    }
    if isinstance(fit.objective, Squared):
        arrays |= {"mean": np.array(fit.objective.mean), "std": np.array(fit.objective.std)}
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, fingerprints=fit.fingerprints, **arrays)
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
    held = {
        split: HeldOut(
            **{
                name.removeprefix(f"{split} "): torch.from_numpy(array)
                for name, array in arrays.items()
                if name.startswith(f"{split} ")
            }
        )
        for split in ("valid", "test")
    }
    return Fit(objective, held, arrays["fingerprints"])


def fit_identity(members: Members) -> str:
    """Digest of all that fits depend on besides data and seed."""
    model = identity(weight_file(Path(DEFAULT_ENCODER)), {"members": members}, {})
    return digest(model, str(FEATURISER_VERSION))[:12]


def all_fits(given: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Data set and file of every fit, made now where it is absent, if at all."""
    given.out.mkdir(parents=True, exist_ok=True)
    key = fit_identity(given.members)
    for seed in range(given.seeds):
        for name in given.sets:
            path = given.out / f"{name}-{given.members}-{seed}-{key}.npz"
            if not path.is_file() and not given.no_fits:
                write(fitted(name, seed, given.members), path)
                print(path.name, flush=True)
            if path.is_file():
                yield name, path


def uncertainty_of(fit: Fit, **options: Any) -> Uncertainty:
    """What `finetune` would fit to the molecules of all folds."""
    given = {"calibration": "auto", "target_coverage": TARGET, **options}
    prints = fit.fingerprints
    return fit_uncertainty(fit.held["valid"], fit.objective, fingerprints=prints, **given)


def ways(fit: Fit) -> dict[str, Tensor]:
    """Test sets or intervals, (n, t, 2), near or far, by how they were bounded."""
    test, uncertainty = fit.held["test"], uncertainty_of(fit)
    everywhere = replace(uncertainty, domain_threshold=0.0)
    sets = {"what is used": everywhere.sets(*inputs(test, fit.objective))}
    if isinstance(fit.objective, Squared):
        valid = fit.held["valid"]
        width = interval_widths(valid.logits, valid.targets, target_coverage=TARGET)
        ends = [fit.objective.values(test.logits + sign * width) for sign in (-1, 1)]
        sets = {"one width for all": torch.stack(ends, 2), **sets}
    return sets


def inputs(held: HeldOut, objective: Multilabel | Squared) -> tuple[Any, ...]:
    """Arguments of `Uncertainty.sets`."""
    return held.logits, objective, held.similarity, held.std


def covered(fit: Fit, sets: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each test molecule is covered, and the size or width of its set, both (n,)."""
    test = fit.held["test"]
    if fit.classes:
        holds = sets.gather(2, test.targets.long()[..., None])[:, 0, 0]
        return holds, sets[:, 0].sum(1).double()
    truth, (low, high) = fit.objective.values(test.targets)[:, 0], sets[:, 0].T
    return (low <= truth) & (truth <= high), high - low


def measured(fit: Fit) -> dict[str, list[float]]:
    """For each way, coverage and mean size within the domain, and of numbers coverage in thirds.

    After them coverage outside the domain. Thirds are of the widths that are used, within the
    domain, also for what has one width for all.
    """
    test = fit.held["test"]
    near = test.similarity >= uncertainty_of(fit).domain_threshold
    sets = ways(fit)
    widths = covered(fit, sets["what is used"])[1][near]
    figures = {}
    for how, some in sets.items():
        holds, sizes = covered(fit, some)
        inside = holds[near].double()
        row = [inside.mean(), sizes[near].mean(), holds[~near].double().mean()]
        if not fit.classes:
            row += [third.mean() for third in inside[widths.argsort()].tensor_split(3)]
        figures[how] = [number.item() for number in row]
    return figures


def coverage_table(files: Mapping[str, Sequence[Path]]) -> Iterator[str]:
    """Means over fits, with the standard error of coverage within the domain."""
    columns = ("data", "bounded by", "fits", "in domain", "size", "outside", *THIRDS)
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for name, paths in files.items():
        rows = [measured(read(path)) for path in paths]
        for how in rows[0] if rows else ():
            numbers = np.array([row[how] for row in rows])
            inside, size, outside, *thirds = np.nanmean(numbers, axis=0)
            error = numbers[:, 0].std(ddof=1) / np.sqrt(len(numbers))
            shown = [f"{100 * share:.1f}" for share in thirds] or [""] * len(THIRDS)
            cells = (
                *(name, how, f"{len(numbers)}", f"{100 * inside:.1f} ± {100 * error:.1f}"),
                *(f"{size:.2f}", f"{100 * outside:.1f}", *shown),
            )
            yield "| " + " | ".join(cells) + " |"


def loss_table(files: Mapping[str, Sequence[Path]]) -> Iterator[str]:
    """Log loss on test molecules of every calibration, and how often "auto" chose which."""
    names = ("none", "temperature", "platt", "isotonic", "venn_abers", "auto")
    columns = ("data", *names, "chosen")
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for name, paths in files.items():
        fits = [fit for fit in map(read, paths) if fit.classes]
        if not fits:
            continue
        losses, chosen = {key: list[float]() for key in names}, list[str]()
        for fit in fits:
            test = fit.held["test"]
            for key, values in losses.items():
                fitted_one = uncertainty_of(fit, calibration=key)
                p = fitted_one.values(test.logits, fit.objective)
                values.append(log_loss(p, test.targets).mean().item())
            assert fitted_one.calibration is not None
            chosen.append(fitted_one.calibration.name)  # of "auto", the last
        counts = ", ".join(f"{key} {chosen.count(key)}" for key in dict.fromkeys(chosen))
        cells = (name, *(f"{np.mean(values):.4f}" for values in losses.values()), counts)
        yield "| " + " | ".join(cells) + " |"


def main() -> None:
    """Fit what is not fitted yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the fits")
    parser.add_argument("--seeds", type=int, default=20, help="splits of each set")
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--members", choices=get_args(Members), default="kernels")
    parser.add_argument(
        "--no-fits", action="store_true", help="take those that are there for these settings"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    files: dict[str, list[Path]] = {name: [] for name in given.sets}
    for name, path in all_fits(given):
        files[name].append(path)
    if not any(files.values()):
        parser.error(f"{given.out} holds no fit of these settings; leave out --no-fits")
    for line in (*coverage_table(files), "", *loss_table(files)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
