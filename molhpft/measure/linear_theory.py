"""Linear theory of Ren et al. (2023): what finetuning does to features, in closed form.

The network is `q = v^T B x` without biases, the loss `1/2 ||X B^T v - Y||^2`, the training gradient
flow in the neural tangent kernel (NTK) regime, where the kernel `Theta` stays what it is at the
start. With features `Z0 = X B0^T`, Gram matrix `K = X X^T`, residual `u = Y - q0` and
`m = K Theta^-1 u`, finetuning moves the features of example i by `m_i v0`; the lemmas follow.

They ask how the end depends on the outputs `q0` at the start, everything else being held fixed, so
each function takes `outputs` in place of the network's own. A longer probed head has `q0` nearer to
`Y`: less energy.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Regime = Literal["strong", "mild", "tiny"]


@dataclass(frozen=True, eq=False)
class LinearStart:
    """The linear network when finetuning starts, and what it is trained on; float64 throughout.

    Attributes:
        inputs: `X`, (N, d), of rank N.
        targets: `Y`, (N,).
        backbone: `B0`, (k, d).
        head: `v0`, (k,), not 0.
    """

    inputs: Tensor
    targets: Tensor
    backbone: Tensor
    head: Tensor

    @property
    def features(self) -> Tensor:
        """`Z0 = X B0^T`, (N, k)."""
        return self.inputs @ self.backbone.T

    @property
    def outputs(self) -> Tensor:
        """`q0 = Z0 v0`, (N,)."""
        return self.features @ self.head

    @property
    def gram(self) -> Tensor:
        """`K = X X^T`, (N, N)."""
        return self.inputs @ self.inputs.T

    @property
    def kernel(self) -> Tensor:
        """NTK of the outputs: `Theta = ||v0||^2 K + Z0 Z0^T`, (N, N)."""
        return self.head.square().sum() * self.gram + self.features @ self.features.T


@dataclass(frozen=True)
class Slopes:
    """How the ends of finetuning change as the energy falls, per share of the residual removed.

    Attributes:
        distance: of the mean `||z_T - z_0||^2`; never positive.
        dot: of the mean `z_T . z_0`; positive, then negative.
        norm: of the mean `||z_T||^2`; positive, then negative, and that before `dot`.
    """

    distance: float
    dot: float
    norm: float


def ntk_solution(start: LinearStart) -> tuple[Tensor, Tensor]:
    """Backbone and head after training to convergence (Lemma 1).

    `B_inf = B0 + v0 u^T Theta^-1 X` and `v_inf = v0 + Z0^T Theta^-1 u`.

    Returns:
        (k, d) and (k,).
    """
    a = torch.linalg.solve(start.kernel, start.targets - start.outputs)
    backbone = start.backbone + torch.outer(start.head, a @ start.inputs)
    return backbone, start.head + start.features.T @ a


def mean_squared_distance(start: LinearStart, outputs: Tensor | None = None) -> Tensor:
    """Mean `||z_T - z_0||^2 = ||v0||^2 / N u^T Theta^-1 K^2 Theta^-1 u`; 0 at `q0 = Y`.

    Args:
        start: the network before finetuning.
        outputs: `q0`, (N,), in place of its own.

    Returns:
        a scalar, differentiable in `outputs`.
    """
    return start.head.square().sum() * _moves(start, outputs).square().mean()


def mean_dot(start: LinearStart, outputs: Tensor | None = None) -> Tensor:
    """Mean `z_T . z_0 = mean ||z_0||^2 + 1/N q0^T K Theta^-1 u` (Lemma 2).

    Arguments and result as for `mean_squared_distance`.
    """
    q0 = start.outputs if outputs is None else outputs
    return start.features.square().sum(1).mean() + (q0 * _moves(start, outputs)).mean()


def mean_squared_norm(start: LinearStart, outputs: Tensor | None = None) -> Tensor:
    """Mean `||z_T||^2 = 2 mean z_T . z_0 - mean ||z_0||^2 + mean ||z_T - z_0||^2` (Lemma 3).

    Arguments and result as for `mean_squared_distance`.
    """
    return (
        2 * mean_dot(start, outputs)
        - start.features.square().sum(1).mean()
        + mean_squared_distance(start, outputs)
    )


def dot_maximiser(start: LinearStart) -> Tensor:
    """Outputs `q0 = Y / 2` from which `mean_dot` ends highest, (N,).

    Lemma 2. Exact where K and Theta commute, and always the best multiple of Y.
    """
    return start.targets / 2


def norm_maximiser(start: LinearStart) -> Tensor:
    """Outputs `q0* = (I + A)^-1 A Y`, `A = Theta^-1 Z0 Z0^T`, with the highest `mean_squared_norm`.

    Lemma 3, (N,). Exact where K and Theta commute. Between 0 (A = 0: the head decides the kernel)
    and Y / 2 (A = I: the features do), hence at more energy than `dot_maximiser`.
    """
    z0 = start.features
    a = torch.linalg.solve(start.kernel, z0 @ z0.T)
    maximiser: Tensor = torch.linalg.solve(torch.eye(len(a)).to(a) + a, a @ start.targets)
    return maximiser


def distance_constant(start: LinearStart) -> float:
    """The least `c` with mean `||z_T - z_0|| <= c` mean `|Y - q0|`, whatever `q0` (Proposition 1).

    `c = ||v0|| max_j sum_i |(K Theta^-1)_ij|`, reached where all energy is in example j.
    """
    spread: Tensor = torch.linalg.solve(start.kernel, start.gram, left=False)
    return start.head.square().sum().sqrt().item() * spread.abs().sum(0).max().item()


def slopes(start: LinearStart, outputs: Tensor | None = None) -> Slopes:
    """Derivatives as `q0` moves towards `Y` and the energy falls (Proposition 2).

    Along `dq0 = u ds`: `-2 ||v0||^2/N m^T m`, `1/N (u - q0)^T m`, and twice the second plus the
    first. Needs no commuting matrices.

    Args:
        start: the network before finetuning.
        outputs: `q0`, (N,), in place of its own.
    """
    q0 = start.outputs if outputs is None else outputs
    distance = -2 * mean_squared_distance(start, outputs).item()
    dot = ((start.targets - 2 * q0) * _moves(start, outputs)).mean().item()
    return Slopes(distance, dot, 2 * dot + distance)


def regime(start: LinearStart, outputs: Tensor | None = None) -> Regime:
    """Which of the paper's three phases (its Table 9) finetuning from here is in.

    "strong": less energy would lengthen the features; their direction changes most. "mild": less
    energy would shorten them, but align them further with what they were; usually best. "tiny":
    less energy would lower the dot product too; features hardly adapt.

    Args:
        start: the network before finetuning.
        outputs: `q0`, (N,), in place of its own.
    """
    slope = slopes(start, outputs)
    if slope.norm > 0:
        return "strong"
    return "mild" if slope.dot > 0 else "tiny"


def regime_energies(start: LinearStart) -> tuple[float, float]:
    """Initial energies, mean `|Y - q0|`, at which the regime changes on the way from 0 to `Y`.

    Returns:
        the energy above which adaptation is strong, and that below which it is tiny: half of mean
        `|Y|`. Between them it is mild.
    """
    moves = _moves(start, torch.zeros_like(start.targets))
    pull = (start.targets * moves).sum()
    stretch = start.head.square().sum() * moves.square().sum()
    share = (pull - stretch) / (2 * pull - stretch)
    energy = start.targets.abs().mean()
    return ((1 - share) * energy).item(), (energy / 2).item()


def _moves(start: LinearStart, outputs: Tensor | None) -> Tensor:
    """`m = K Theta^-1 u`, (N,): finetuning moves the features of example i by `m_i v0`."""
    q0 = start.outputs if outputs is None else outputs
    moves: Tensor = start.gram @ torch.linalg.solve(start.kernel, start.targets - q0)
    return moves
