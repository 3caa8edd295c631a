"""What similarities of molecules are worth to a Gaussian process, alone and added up.

    python benchmarks/similarities.py --quick
    python benchmarks/similarities.py --sets CHEMBL4203_Ki caco2 bace

A column for each sum, with the weights that labels of the training rows find likeliest, or equal
ones: `counts` are Morgan, atom pairs and torsions, `all` are these, features and properties. The
number behind the last two is the width of their Gaussian in standard deviations; in `all` it is
that of the package. Scores of `--split valid`, the default, choose. RMSE: lower is better; ROC-AUC
in percent: higher is. What was computed before is read from `--store`.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from development_sets import DevelopmentSet, Fold
from encoders import Judged, judging_parser, print_tables
from frozen_protocol import encoder_features
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.preprocessing import StandardScaler

from molhpft.core.network import Chain
from molhpft.core.scale import fit_scale
from molhpft.domains.files import digest
from molhpft.domains.molecules.count_fingerprints import SUBSTRUCTURES
from molhpft.domains.molecules.fingerprint_kernels import gaussian_kernel, minmax_kernel
from molhpft.domains.weights import encoder_name, weight_file
from molhpft.estimator.frozen import pretrained_backbone
from molhpft.estimator.kernel_models import (
    Covariance,
    fit_kernel_model,
    likeliest_covariance,
    sampled_rows,
    weighing_rows,
    weighted_sum,
)
from molhpft.estimator.similarities import WIDTHS, read_columns

VERSION = "similarities 1"

_COUNTS = " + ".join(SUBSTRUCTURES)
_FEATURES, _PROPERTIES = (f"{name} {WIDTHS[name]:g}" for name in ("features", "properties"))
_ALL = " + ".join([_COUNTS, _FEATURES, _PROPERTIES])
_WIDER = f"features {2 * WIDTHS['features']:g}"
SUMS = {
    **{what: what for what in (*SUBSTRUCTURES, _FEATURES, _WIDER, _PROPERTIES)},
    "counts": _COUNTS,
    "all": _ALL,
    f"all, {_WIDER}": " + ".join([_COUNTS, _WIDER, _PROPERTIES]),
    "all, equal": f"equal: {_ALL}",
}
"""Names of columns to what is added up."""
_NOISE = 0.2  # of sums with equal weights

Kernels = Mapping[str, NDArray[np.float64]]


def sum_score(
    data: DevelopmentSet, fold: Fold, seed: int, *, what: str, backbone: Chain, identity: str
) -> float:
    """Score on the scored rows of a process that compares by one of `SUMS`."""
    targets = torch.from_numpy(data.labels[fold.train])
    known = sampled_rows(targets, seed=seed)
    columns = _columns(data.smiles, backbone, identity)
    train, targets = fold.train[known], targets[known]
    names = what.removeprefix("equal: ").split(" + ")
    among: dict[str, NDArray[np.float64]] = {}
    asked: dict[str, NDArray[np.float64]] = {}
    for name in names:
        rows = np.concatenate([train, fold.scored])
        kernel = _similarity(name, columns, rows, count=len(train))
        among[name], asked[name] = kernel[: len(train)], kernel[len(train) :]
    covariance = Covariance(what, dict.fromkeys(names, 1 / len(names)), _NOISE)
    if not what.startswith("equal"):
        some = weighing_rows(targets, seed=seed)
        few = {name: kernel[np.ix_(some, some)] for name, kernel in among.items()}
        covariance = likeliest_covariance(what, few, targets, some)
    model = fit_kernel_model(
        covariance, weighted_sum(covariance.weights, among.__getitem__), targets
    )
    return data.score(fold, model.outputs(asked).numpy())


@lru_cache(maxsize=1)
def _columns(smiles: tuple[str, ...], backbone: Chain, identity: str) -> Mapping[str, NDArray]:
    """What is read of the molecules (n,): counts sparse, the others dense."""
    columns = dict(read_columns((*SUBSTRUCTURES, "properties"), smiles))
    return {**columns, "features": encoder_features(backbone, smiles)}


def _similarity(
    name: str, columns: Mapping[str, NDArray], rows: NDArray[np.int64], *, count: int
) -> NDArray[np.float64]:
    """Similarities of rows (m,) to the first `count` of them, which train, (m, count)."""
    kind, _, width = name.partition(" ")
    own = columns[kind][rows]
    if kind in SUBSTRUCTURES:
        counts = csr_matrix(own)
        return minmax_kernel(counts, counts[:count])
    if kind == "features":
        scaled = StandardScaler().fit(own[:count]).transform(own.astype(np.float64))
    else:
        scaled = fit_scale(own[:count]).filled(torch.from_numpy(own).double()).numpy()
    return gaussian_kernel(scaled / float(width), scaled[:count] / float(width))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = judging_parser(__doc__ or "", "runs/similarities.jsonl")
    given = parser.parse_args(arguments)
    judged = []
    for encoder in given.encoders:
        path = weight_file(Path(encoder))
        backbone, identity = pretrained_backbone(path), digest(path)
        for name, what in SUMS.items():
            score = partial(sum_score, what=what, backbone=backbone, identity=identity)
            name = name if len(given.encoders) == 1 else f"{encoder_name(path)}: {name}"
            judged.append(Judged(name, digest(identity, what), score, protocol=VERSION))
    print_tables(parser, given, judged)


if __name__ == "__main__":
    main()
