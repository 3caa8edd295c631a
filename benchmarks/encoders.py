"""Encoders judged by their frozen features on MoleculeACE, ADMET and OGB sets, as Markdown tables.

    python benchmarks/encoders.py --encoders gcn_structure model.safetensors gcn.pth --quick
    python benchmarks/encoders.py --encoders gcn_structure gcn.pth --baselines forest svr_counts

The protocol is that of `frozen_protocol.py`. Scores of `--split valid`, the default, choose;
`--split test` is for the final table. RMSE: lower is better; ROC-AUC in percent: higher is. What
was computed before is read from `--store`. `--quick` takes 12 sets and at most 2,000 training rows.
`estimators.py` judges what finetuning makes of an encoder.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from beside import Beside
from development_sets import (
    ADMET,
    DevelopmentSet,
    Fold,
    Split,
    data_root,
    development_set,
    set_names,
)
from error_figure import draw_errors
from frozen_protocol import (
    VERSION,
    encoder_features,
    forest_score,
    gaussian_kernels,
    machine_score,
    minmax_kernels,
    morgan_counts,
    sampled,
)
from result_store import ResultStore
from scipy.stats import rankdata

from molhpft.core.network import Chain
from molhpft.domains.files import cached_tensors, digest
from molhpft.domains.molecules.smiles import FEATURISER_VERSION
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.domains.weights import encoder_name, weight_file
from molhpft.estimator.frozen import pretrained_backbone

FOREST, SVR_COUNTS = "forest", "svr_counts"
BASELINES = (FOREST, SVR_COUNTS)


@dataclass(frozen=True)
class Judged:
    """Something that is scored on every set.

    Attributes:
        name: of its column.
        identity: what its scores depend on besides protocol, data and seed.
        score: of a fold of a set, under a seed.
        seeds: how many there are; 1 where nothing is drawn.
        protocol: by which it is scored.
        joined: whether it learns from validation rows, too.
    """

    name: str
    identity: str
    score: Callable[[DevelopmentSet, Fold, int], float]
    seeds: int = 1
    protocol: str = VERSION
    joined: bool = False


def judged_encoder(given: str) -> Judged:
    """An encoder by the name of a shipped one or the path of a weight file."""
    path = weight_file(Path(given))
    backbone, identity = pretrained_backbone(path), digest(path)

    def score(data: DevelopmentSet, fold: Fold, seed: int) -> float:
        some = sampled(data, fold)
        features = _cached_features(backbone, identity, data, some)
        return machine_score(data, some, gaussian_kernels(features, some))

    return Judged(encoder_name(path), identity, score)


def _cached_features(
    backbone: Chain, identity: str, data: DevelopmentSet, fold: Fold
) -> np.ndarray:
    """Features (n, d), NaN for molecules that neither this fold nor another one reads."""
    others = data.folds if len(data.folds) > 1 else ()
    rows = np.unique(np.concatenate([r for f in (fold, *others) for r in (f.train, f.scored)]))
    smiles = tuple(data.smiles[row] for row in rows)

    def build() -> dict[str, torch.Tensor]:
        return {"features": torch.from_numpy(encoder_features(backbone, smiles))}

    key = f"judged/{digest(identity, str(FEATURISER_VERSION), *smiles)[:32]}"
    features = cached_tensors(key, build)["features"].numpy()
    whole = np.full((len(data.smiles), features.shape[1]), np.nan, dtype=np.float32)
    whole[rows] = features
    return whole


def judged_baseline(name: str, seeds: int, *, joined: bool) -> Judged:
    """Morgan counts under a random forest, or under a support vector machine."""
    if name == FOREST:

        def forest(data: DevelopmentSet, fold: Fold, seed: int) -> float:
            return forest_score(data, fold, morgan_counts(data.smiles), seed)

        return Judged(name, name, forest, seeds, joined=joined)

    def machine(data: DevelopmentSet, fold: Fold, seed: int) -> float:
        some = sampled(data, fold)
        return machine_score(data, some, minmax_kernels(morgan_counts(data.smiles), some))

    return Judged(name, name, machine, joined=joined)


def stored_scores(judged: Judged, data: DevelopmentSet, store: ResultStore) -> list[float]:
    """For each seed the mean over folds, computed where the store has none."""

    def stored(fold: Fold, seed: int) -> float:
        depends_on = {
            "protocol": judged.protocol,
            "featuriser": FEATURISER_VERSION,
            "judged": judged.identity,
            "set": data.name,
            "content": data.content(fold),
            "seed": seed,
        }
        return float(store.once(depends_on, lambda: judged.score(data, fold, seed)))

    folds = [fold.joined() if judged.joined else fold for fold in data.folds]
    return [mean(stored(fold, seed) for fold in folds) for seed in range(judged.seeds)]


def scored(
    judged: Sequence[Judged], sets: Iterable[DevelopmentSet], store: ResultStore
) -> tuple[list[DevelopmentSet], list[np.ndarray]]:
    """The sets, and of each judged the scores (seeds, sets), a set after the other for all."""
    read, columns = [], []
    for data in sets:
        read.append(data)
        columns.append([stored_scores(one, data, store) for one in judged])
    return read, [np.array(of_one).T for of_one in zip(*columns, strict=True)]


def mean_ranks(scores: np.ndarray, lower_is_better: Sequence[bool]) -> np.ndarray:
    """Mean over sets of each row's rank, 1 for the best, ties in the middle.

    Args:
        scores: (rows, sets).
        lower_is_better: (sets,).
    """
    signs = np.where(lower_is_better, 1.0, -1.0)
    return rankdata(scores * signs, axis=0).mean(1)


def tables(
    names: Sequence[str], sets: Sequence[DevelopmentSet], scores: Sequence[np.ndarray]
) -> list[str]:
    """Markdown: a table of groups and one of sets, a column for each judged.

    Means over seeds, ± the standard deviation over them where there are several; ranks are those of
    the means.

    Args:
        names: (rows,).
        sets: (k,), in order of their columns.
        scores: (rows,), each (seeds, k).
    """
    header = [f"| | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    lines = list(header)
    groups = dict.fromkeys((data.group, data.metric) for data in sets)
    for group, metric in groups:
        columns = [k for k, data in enumerate(sets) if (data.group, data.metric) == (group, metric)]
        what = f"{group}, mean {metric} of {len(columns)}"
        lines.append(_line(what, [one[:, columns].mean(1) for one in scores], metric))
    admet = [k for k, data in enumerate(sets) if data.group == ADMET]
    if admet:
        means = np.array([one[:, admet].mean(0) for one in scores])
        ranks = mean_ranks(means, [not sets[k].classes for k in admet])
        lines.append(_line(f"{ADMET}, mean rank over {len(admet)}", ranks[:, None], "rank"))
    lines += ["", *header]
    for k, data in enumerate(sets):
        what = f"{data.name} ({data.metric})"
        lines.append(_line(what, [one[:, k] for one in scores], data.metric))
    return lines


def _line(what: str, values: Sequence[np.ndarray] | np.ndarray, metric: str) -> str:
    """A row of Markdown, from the values (seeds,) of each column."""
    digits = 4 if metric == "RMSE" else 2
    cells = []
    for of_one in values:
        spread = f" ± {of_one.std(ddof=1):.{digits}f}" if len(of_one) > 1 else ""
        cells.append(f"{of_one.mean():.{digits}f}{spread}")
    return f"| {what} | {' | '.join(cells)} |"


def judging_parser(
    about: str, store: str, *, splits: Sequence[Split] = ("valid", "test")
) -> argparse.ArgumentParser:
    """Options of all scripts that judge on these sets.

    Args:
        about: docstring of the script.
        store: where its scores are kept by default.
        splits: that it can score; "folds" where what is judged predicts out of fold.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--encoders", nargs="*", default=[DEFAULT_ENCODER], metavar="NAME_OR_PATH")
    parser.add_argument("--baselines", nargs="*", default=[], choices=BASELINES)
    parser.add_argument("--sets", nargs="+", help="names of sets; all by default")
    parser.add_argument("--split", choices=splits, default="valid")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=data_root())
    parser.add_argument("--store", type=Path, default=Path(store))
    parser.add_argument("--seeds", type=positive, help="of what is drawn; 3, or 1 with --quick")
    about_figure = f"PNG or SVG of all errors, relative to {SVR_COUNTS}"
    parser.add_argument("--figure", type=Path, help=about_figure)
    return parser


def seeds_of(given: argparse.Namespace) -> int:
    """How many seeds what is drawn has."""
    return given.seeds or (1 if given.quick else 3)


def positive(text: str) -> int:
    """A whole number above 0 of the command line."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be at least 1, got {text}")
    return int(text)


def print_tables(
    parser: argparse.ArgumentParser,
    given: argparse.Namespace,
    judged: Sequence[Judged],
    beside: Sequence[Beside] = (),
    *,
    joined: bool = False,
) -> None:
    """Score on the sets that are asked for, beside the baselines, and print the tables.

    Args:
        parser: for what cannot be done.
        given: what it parsed.
        judged: whose scores are computed.
        beside: whose scores are read from a file.
        joined: whether baselines learn from validation rows, too, as the judged do.
    """
    if given.figure is not None and SVR_COUNTS not in given.baselines:
        parser.error(f"--figure shows errors relative to {SVR_COUNTS}; add it to --baselines")
    if given.split == "folds" and (given.baselines or beside):
        parser.error("--split folds scores rows that baselines learn from; leave these out")
    baselines = (judged_baseline(n, seeds_of(given), joined=joined) for n in given.baselines)
    together = [*judged, *baselines]
    names = given.sets or set_names(given.data, quick=given.quick)
    unknown = sorted(set(names) - set(set_names(given.data)))
    if unknown:
        parser.error(f"--sets names {', '.join(unknown)}, which {given.data} does not hold")
    sets = [development_set(given.data, name, given.split, quick=given.quick) for name in names]
    try:
        read = [np.array([[one.score(data) for data in sets]]) for one in beside]
    except ValueError as error:
        parser.error(str(error))
    _, scores = scored(together, sets, ResultStore(given.store))
    columns = [one.name for one in (*together, *beside)]
    scores += read
    print("\n".join(tables(columns, sets, scores)))
    if given.figure is not None:
        means = np.array([one.mean(0) for one in scores])
        draw_errors(columns, sets, means, given.figure, reference=SVR_COUNTS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = judging_parser(__doc__ or "", "runs/encoders.jsonl")
    given = parser.parse_args(arguments)
    print_tables(parser, given, [judged_encoder(one) for one in given.encoders])


if __name__ == "__main__":
    main()
