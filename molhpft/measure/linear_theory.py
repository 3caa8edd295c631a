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

from molhpft.core.annotations import Float

Regime = Literal["strong", "mild", "tiny"]
TINY = 0.1
"""Fraction of mean `|Y|` below which energy counts as tiny.

Our reading: the paper's tiny regime is the point `q0 = Y`. On the straight way there, features then
move less than a tenth as far as they do from outputs of 0.
"""


@dataclass(frozen=True, eq=False)
class LinearStart:
    """The linear network when finetuning starts, and what it is trained on; float64 throughout.

    Attributes:
        inputs: `X`, of rank n.
        targets: `Y`.
        backbone: `B0`.
        head: `v0`, not 0.

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> start = LinearStart(one, torch.tensor([2.0]).double(), one, torch.tensor([1.0]).double())
    >>> backbone, head = ntk_solution(start)  # the residual is split in halves
    >>> backbone.item(), head.item()
    (1.5, 1.5)
    """

    inputs: Float[Tensor, "n d"]
    targets: Float[Tensor, " n"]
    backbone: Float[Tensor, "k d"]
    head: Float[Tensor, " k"]

    @property
    def features(self) -> Float[Tensor, "n k"]:
        """`Z0 = X B0^T`."""
        return self.inputs @ self.backbone.T

    @property
    def outputs(self) -> Float[Tensor, " n"]:
        """`q0 = Z0 v0`."""
        return self.features @ self.head

    @property
    def gram(self) -> Float[Tensor, "n n"]:
        """`K = X X^T`."""
        return self.inputs @ self.inputs.T

    @property
    def kernel(self) -> Float[Tensor, "n n"]:
        """NTK of the outputs: `Theta = ||v0||^2 K + Z0 Z0^T`."""
        return self.head.square().sum() * self.gram + self.features @ self.features.T


def ntk_solution(start: LinearStart) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    """Backbone and head after training to convergence (Lemma 1).

    `B_inf = B0 + v0 u^T Theta^-1 X` and `v_inf = v0 + Z0^T Theta^-1 u`.
    """
    a = torch.linalg.solve(start.kernel, start.targets - start.outputs)
    backbone = start.backbone + torch.outer(start.head, a @ start.inputs)
    return backbone, start.head + start.features.T @ a


def mean_squared_distance(
    start: LinearStart, outputs: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """Mean `||z_T - z_0||^2 = ||v0||^2 / N u^T Theta^-1 K^2 Theta^-1 u`; 0 at `q0 = Y`.

    Args:
        start: the network before finetuning.
        outputs: `q0`, (N,), in place of its own.

    Returns:
        A scalar, differentiable in `outputs`.
    """
    return start.head.square().sum() * _moves(start, outputs).square().mean()


def mean_dot(start: LinearStart, outputs: Float[Tensor, " n"] | None = None) -> Float[Tensor, ""]:
    """Mean `z_T . z_0 = mean ||z_0||^2 + 1/N q0^T K Theta^-1 u` (Lemma 2).

    Arguments and result as for `mean_squared_distance`.
    """
    q0 = start.outputs if outputs is None else outputs
    return start.features.square().sum(1).mean() + (q0 * _moves(start, outputs)).mean()


def mean_squared_norm(
    start: LinearStart, outputs: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """Mean `||z_T||^2 = 2 mean z_T . z_0 - mean ||z_0||^2 + mean ||z_T - z_0||^2` (Lemma 3).

    Arguments and result as for `mean_squared_distance`.
    """
    return (
        2 * mean_dot(start, outputs)
        - start.features.square().sum(1).mean()
        + mean_squared_distance(start, outputs)
    )


def dot_maximiser(start: LinearStart) -> Float[Tensor, " n"]:
    """Outputs `q0 = Y / 2` from which `mean_dot` ends highest.

    Lemma 2. Exact where K and Theta commute, and always the best multiple of Y.
    """
    return start.targets / 2


def norm_maximiser(start: LinearStart) -> Float[Tensor, " n"]:
    """Outputs `q0* = (I + A)^-1 A Y`, `A = Theta^-1 Z0 Z0^T`, with the highest `mean_squared_norm`.

    Lemma 3. Exact where K and Theta commute. Between 0 (A = 0: the head decides the kernel)
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
    moves: Tensor = torch.linalg.solve(start.kernel, start.gram, left=False)
    return start.head.square().sum().sqrt().item() * moves.abs().sum(0).max().item()


def regime_energies(start: LinearStart) -> tuple[float, float]:
    """Initial energies, mean `|Y - q0|`, at which the regime changes.

    Returns:
        That of `dot_maximiser`, half of mean `|Y|`, above which adaptation is strong; and that
        below which it is tiny, `TINY` of mean `|Y|`. Between them it is mild.
    """
    energy = start.targets.abs().mean().item()
    return _energy(start, dot_maximiser(start)), TINY * energy


def regime(start: LinearStart, outputs: Float[Tensor, " n"] | None = None) -> Regime:
    """Which of the three regimes of the paper (its Table 9) finetuning from here is in.

    "strong": outputs between 0 and `Y / 2`; features turn, more so the more energy there is.
    "mild": outputs between `Y / 2` and `Y`; finetuning makes features longer and hardly turns
    them. "tiny": outputs all but at `Y`; features hardly change at all.

    Args:
        start: the network before finetuning.
        outputs: `q0`, (N,), in place of its own.
    """
    strong, tiny = regime_energies(start)
    energy = _energy(start, start.outputs if outputs is None else outputs)
    if energy > strong:
        return "strong"
    return "mild" if energy > tiny else "tiny"


def _energy(start: LinearStart, outputs: Tensor) -> float:
    return (start.targets - outputs).abs().mean().item()


def _moves(start: LinearStart, outputs: Tensor | None) -> Tensor:
    """`m = K Theta^-1 u`, (N,): finetuning moves the features of example i by `m_i v0`."""
    q0 = start.outputs if outputs is None else outputs
    moves: Tensor = start.gram @ torch.linalg.solve(start.kernel, start.targets - q0)
    return moves
