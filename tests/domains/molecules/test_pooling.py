"""Pools against loops over molecules."""

import pytest
import torch

from molhpft.core.network import Batch
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pooling import TYPICAL_ATOMS, atom_pool

SMILES = ["CCO", "not a molecule", "C", "c1ccccc1N", "[Na+].[Cl-]"]
BATCH = Batch(pack(SMILES).take(torch.arange(len(SMILES))), torch.zeros(len(SMILES), 1))
ATOMS = len(BATCH.inputs.graph)


def by_loops(pool, name, h):
    rows = []
    for i in range(len(SMILES)):
        atoms = h[BATCH.inputs.offsets[i] : BATCH.inputs.offsets[i + 1]]
        mean, total = atoms.sum(0) / max(len(atoms), 1), atoms.sum(0) / TYPICAL_ATOMS
        if name == "attention":
            rows.append((pool.score(atoms).softmax(0) * atoms).sum(0))
        else:
            parts = {"mean": [mean], "sum": [total], "mean+sum": [mean, total]}[name]
            rows.append(torch.cat(parts))
    return torch.stack(rows)


pools = pytest.mark.parametrize("name", ["mean", "sum", "mean+sum", "attention"])


@pools
def test_a_pool_is_its_formula_molecule_by_molecule_and_reads_atoms_alone(name):
    torch.manual_seed(0)
    pool, h = atom_pool(name, 4), torch.randn(ATOMS + 7, 4)  # seven rows that are no atoms
    z = pool(h, BATCH)
    torch.testing.assert_close(z, by_loops(pool, name, h[:ATOMS]))
    assert z.shape == (len(SMILES), pool.width)


@pools
def test_rows_of_half_precision_are_pooled_in_float32(name):
    torch.manual_seed(0)
    pool, h = atom_pool(name, 4), torch.randn(ATOMS, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        z = pool(h, BATCH)
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, by_loops(pool, name, h.float()))


@pytest.mark.parametrize("name", ["sum", "mean+sum"])
def test_a_pool_with_sums_counts_atoms_and_a_mean_does_not(name):
    chains = pack(["CCCC", "CCCCCCCC"]).take(torch.arange(2))
    h = torch.ones(len(chains.graph), 4)
    batch = Batch(chains, torch.zeros(2, 1))
    counted, mean = atom_pool(name, 4)(h, batch), atom_pool("mean", 4)(h, batch)
    assert torch.equal(*mean)
    assert (counted[1] - counted[0]).max() > 0


def test_attention_of_large_scores_stays_finite():
    pool = atom_pool("attention", 4)
    torch.nn.init.constant_(pool.score.weight, 1e4)
    h = torch.randn(ATOMS, 4)
    z = pool(h, BATCH)
    assert z.isfinite().all()
    torch.testing.assert_close(z, by_loops(pool, "attention", h))
