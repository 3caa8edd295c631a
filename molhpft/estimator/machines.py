"""Support vector machines on what is known of molecules without training: frozen features, counts.

They fit in seconds and are hard to beat on small tables. A model may hold some beside its networks.
Each is a weighted sum of similarities to training molecules, so that a file of tensors holds it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from molhpft.core.network import Chain
from molhpft.domains.molecules.fingerprint_kernels import (
    gaussian_kernel,
    minmax_kernel,
    unary_counts,
)
from molhpft.domains.molecules.fingerprints import BITS
from molhpft.domains.molecules.graphs import GraphStore
from molhpft.domains.weights import strip_prefix
from molhpft.estimator.frozen import backbone_features

KernelName = Literal["fingerprints", "features", "features and fingerprints"]
KERNELS: tuple[KernelName, ...] = get_args(KernelName)
"""The simplest first."""

C = 3.0
TUBE = 0.1  # of a regression, in standard deviations of the target
MOST_ROWS = 8_000  # whose kernel takes half a gigabyte
BUDGET = 2e8  # squared numbers of labels, summed over targets: minutes of one core

_STRETCH = 1_024  # molecules whose similarities are in memory at a time
_ENCODER = "encoder."

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Described:
    """What machines read of n molecules.

    Attributes:
        features: of a frozen encoder, standardised, float32 (n, d); d is 0 without an encoder.
        counts: of circular neighbourhoods (Morgan), (n, 2048).
    """

    features: NDArray[np.float32]
    counts: csr_matrix

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: NDArray[np.int64]) -> "Described":
        """Some of the molecules."""
        return Described(self.features[rows], self.counts[rows])

    @property
    def kernels(self) -> tuple[KernelName, ...]:
        """Those that these molecules can be compared by."""
        return KERNELS if self.features.shape[1] else ("fingerprints",)


def similarities(asked: Described, known: Described) -> dict[KernelName, Array]:
    """Similarities of m molecules to n known ones by each kernel, (m, n).

    Of standardised features exp(-|a - b|^2 / (2 d)), of counts sum(min) / sum(max), and both added.
    """
    # one call: a column then means the same count in both
    both = unary_counts(vstack([asked.counts, known.counts], format="csr"))
    by_counts = minmax_kernel(both[: len(asked)], both[len(asked) :])
    if not known.features.shape[1]:
        return {"fingerprints": by_counts}
    by_features = gaussian_kernel(asked.features.astype(float), known.features.astype(float))
    return {
        "features": by_features,
        "fingerprints": by_counts,
        "features and fingerprints": by_features + by_counts,
    }


@dataclass(frozen=True, eq=False)
class Machine:
    """For each target a sum of similarities to n known molecules, on the scale of logits.

    Attributes:
        kernel: the similarity.
        coefficients: (n, t), 0 for molecules that no margin needs.
        intercepts: (t,).
    """

    kernel: KernelName
    coefficients: Array
    intercepts: Array

    def logits(self, similarity: Array) -> Tensor:
        """Logits (m, t) of molecules with these similarities (m, n) to the known ones."""
        return torch.from_numpy(similarity @ self.coefficients + self.intercepts)

    def scaled(self, slopes: Array, offsets: Array) -> "Machine":
        """The machine whose logits are `slopes` times these, plus `offsets`; both (t,)."""
        return Machine(self.kernel, self.coefficients * slopes, self.intercepts * slopes + offsets)


def fit_machine(
    kernel: KernelName, similarity: Array, targets: Tensor, *, classes: bool
) -> Machine:
    """A support vector machine for each target, with nothing tuned: C = 3 and a tube of 0.1.

    A target of one class, or without two numbers, has the constant that its labels suggest.

    Args:
        kernel: what the similarities are.
        similarity: of n training molecules to one another, (n, n).
        targets: 0 or 1, or numbers in standard deviations, (n, t); NaN where unmeasured.
        classes: which of both.
    """
    from sklearn.svm import SVC, SVR  # a second, which a prediction does without

    n, t = targets.shape
    coefficients, intercepts = np.zeros((n, t)), np.zeros(t)
    for k, y in enumerate(targets.double().numpy().T):
        rows = np.flatnonzero(~np.isnan(y))
        own = y[rows]
        if len(np.unique(own)) < 2:
            intercepts[k] = _constant(own, classes=classes)
            continue
        machine = (
            SVC(C=C, kernel="precomputed")
            if classes
            else SVR(C=C, epsilon=TUBE, kernel="precomputed")
        )
        part = similarity if len(rows) == n else similarity[np.ix_(rows, rows)]
        machine.fit(part, own)
        coefficients[rows[machine.support_], k] = machine.dual_coef_[0]
        intercepts[k] = machine.intercept_[0]
    return Machine(kernel, coefficients, intercepts)


def _constant(labels: Array, *, classes: bool) -> float:
    """What is predicted where there is nothing to tell apart: one virtual label of each class."""
    if not classes:
        return float(labels.mean()) if len(labels) else 0.0
    return float(np.log((labels.sum() + 1) / (len(labels) - labels.sum() + 1)))


def affordable_rows(targets: Tensor, *, seed: int) -> NDArray[np.int64]:
    """Rows of the molecules that machines are fitted to: all, or a sample that is not too many.

    Args:
        targets: (n, t), NaN where unmeasured.
        seed: of the sample.
    """
    n, measured = len(targets), (~targets.isnan()).sum(0).double()
    share = min(1.0, MOST_ROWS / n, float(BUDGET / measured.square().sum().clamp(min=1)) ** 0.5)
    drawn = np.random.default_rng(seed).permutation(n)[: max(1, round(share * n))]
    return np.sort(drawn)


@dataclass(frozen=True, eq=False)
class Machines:
    """Machines that know the same molecules, with what describes others to them.

    Attributes:
        machines: k of them.
        known: the molecules that they compare others with.
        backbone: of the frozen encoder, standardised at its end; None where none reads features.
    """

    machines: tuple[Machine, ...]
    known: Described
    backbone: Chain | None

    def logits(
        self, store: GraphStore, rows: Tensor, counts: csr_matrix | NDArray[np.uint8]
    ) -> Tensor:
        """Logits of each machine for m molecules, float32 (k, m, t) on the CPU.

        Args:
            store: molecules.
            rows: of those that are asked about, int64 (m,).
            counts: of these, (m, 2048).
        """
        parts = []
        for begin in range(0, len(rows), _STRETCH):
            some = slice(begin, begin + _STRETCH)
            asked = described(self.backbone, store, rows[some], csr_matrix(counts[some]))
            by_kernel = similarities(asked, self.known)
            parts.append(torch.stack([one.logits(by_kernel[one.kernel]) for one in self.machines]))
        t = self.machines[0].coefficients.shape[1]
        return torch.cat([torch.empty(len(self.machines), 0, t), *parts], dim=1).float()

    def scaled(self, slopes: Tensor, offsets: Tensor) -> "Machines":
        """The machines whose logits are `slopes` times these, plus `offsets`; both (k, t)."""
        pairs = zip(self.machines, slopes.numpy(), offsets.numpy(), strict=True)
        return replace(self, machines=tuple(one.scaled(a, b) for one, a, b in pairs))

    def only(self, numbers: Sequence[int]) -> "Machines":
        """Some of the machines, with the molecules and the encoder that these need."""
        some = [self.machines[k] for k in numbers]
        used = np.any([(one.coefficients != 0).any(1) for one in some], axis=0)
        rows = np.flatnonzero(used)
        reads = any("features" in one.kernel for one in some)
        known = self.known.take(rows)
        if not reads:
            known = replace(known, features=known.features[:, :0])
        return Machines(
            tuple(replace(one, coefficients=one.coefficients[rows]) for one in some),
            known,
            self.backbone if reads else None,
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """What `machines_from` reads, beside the names of the kernels."""
        counts = self.known.counts
        tensors = {
            "known.features": torch.from_numpy(self.known.features),
            "known.counts.starts": torch.from_numpy(counts.indptr.astype(np.int64)),
            "known.counts.columns": torch.from_numpy(counts.indices.astype(np.int16)),
            "known.counts.values": torch.from_numpy(counts.data.astype(np.uint8)),
        }
        for k, machine in enumerate(self.machines):
            tensors[f"{k}.coefficients"] = torch.from_numpy(machine.coefficients)
            tensors[f"{k}.intercepts"] = torch.from_numpy(machine.intercepts)
        frozen = self.backbone.state_dict() if self.backbone else {}
        return tensors | {f"{_ENCODER}{name}": tensor for name, tensor in frozen.items()}


def machines_from(
    tensors: Mapping[str, Tensor], names: Sequence[KernelName], backbone: Chain | None
) -> Machines:
    """The inverse of `Machines.to_tensors`.

    Args:
        tensors: of it.
        names: of the kernels, in order.
        backbone: of the encoder's shape, standardised at its end; its weights are set.

    Raises:
        KeyError: a tensor is missing.
    """
    counts = csr_matrix(
        tuple(tensors[f"known.counts.{part}"].numpy() for part in ("values", "columns", "starts")),
        shape=(len(tensors["known.features"]), BITS),
    )
    machines = tuple(
        Machine(name, tensors[f"{k}.coefficients"].numpy(), tensors[f"{k}.intercepts"].numpy())
        for k, name in enumerate(names)
    )
    if backbone is not None:
        backbone.load_state_dict(strip_prefix(tensors, _ENCODER))
        backbone.eval()
    return Machines(machines, Described(tensors["known.features"].numpy(), counts), backbone)


def described(
    backbone: Chain | None, store: GraphStore, rows: Tensor, counts: csr_matrix
) -> Described:
    """What machines read of the molecules `rows` (m,) of a store, with their counts (m, 2048)."""
    if backbone is None:
        return Described(np.empty((len(rows), 0), dtype=np.float32), counts)
    return Described(backbone_features([backbone], store, rows).numpy(), counts)
