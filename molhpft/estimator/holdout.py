"""Which molecules an estimator stops and chooses by, where nobody has set any aside."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.splits import random_split, scaffold_split

Holdout = Literal["scaffold", "random"]


def held_out(smiles: Sequence[str], how: Holdout, *, share: float, seed: int) -> dict[str, Tensor]:
    """Rows of "train" and "valid"; molecules that cannot be read are in neither.

    Args:
        smiles: (n,).
        how: by scaffold, rare ones in validation, or at random.
        share: of molecules for validation, between 0 and 1.
        seed: draws the random one.

    Raises:
        ValueError: the share is none, or leaves a split empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"validation should be a share between 0 and 1, got {share}")
    fractions = (1 - share, share, 0.0)
    if how == "scaffold":
        found = scaffold_split(smiles, fractions=fractions)
    else:
        readable = load_or_pack(smiles).readable.nonzero().flatten()
        rng = torch.Generator().manual_seed(seed)
        dealt = random_split(len(readable), rng=rng, fractions=fractions)
        found = {split: readable[rows] for split, rows in dealt.items()}
    for split in ("train", "valid"):
        if not len(found[split]):
            raise ValueError(
                f"{len(smiles):,} molecules leave none to {split}; give more, or an eval_set"
            )
    return {split: found[split] for split in ("train", "valid")}
