"""What chemprop itself makes of molecules, for an environment that has it: no part of the tests.

    python chemprop_own.py columns SMILES.txt OUT.npz
    python chemprop_own.py outputs SMILES.txt OUT.npz MODEL.pt [MESSAGE_PASSING.pt AGGREGATION]

SMILES.txt has a string a line. `columns` writes those of atoms and of directed bonds in the order
of chemprop: of each bond both directions, one after the other. Strings that chemprop refuses have
none. `outputs` writes the features of molecules.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from chemprop.data import BatchMolGraph
from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
from chemprop.models import MPNN
from chemprop.nn import BondMessagePassing, MeanAggregation, NormAggregation, SumAggregation
from chemprop.utils import make_mol
from rdkit import RDLogger, rdBase

AGGREGATIONS = {"mean": MeanAggregation, "sum": SumAggregation, "norm": NormAggregation}


def graph(smiles):
    try:
        return FEATURIZER(make_mol(smiles, keep_h=False, add_h=False))
    except RuntimeError:
        return None


def columns(graphs):
    """Bits packed into bytes, masses, and numbers of atoms and directed bonds of molecules."""
    atoms = np.concatenate([g.V for g in graphs if g])
    bonds = np.concatenate([g.E for g in graphs if g])
    return {
        "atom_bits": np.packbits(atoms[:, :-1].astype(bool), axis=1),
        "masses": atoms[:, -1],
        "bond_bits": np.packbits(bonds.astype(bool), axis=1),
        "rdkit": rdBase.rdkitVersion,
        "counts": np.array([(len(g.V), len(g.E)) if g else (0, 0) for g in graphs]),
    }


def outputs(graphs, model, passing=None, aggregation=None):
    if passing is None:
        whole = MPNN.load_from_file(model, map_location="cpu").eval()
        return {"features": whole.fingerprint(BatchMolGraph(graphs)).detach().numpy()}
    file = torch.load(passing, weights_only=True)
    layers = BondMessagePassing(**file["hyper_parameters"]).eval()
    layers.load_state_dict(file["state_dict"])
    batch = BatchMolGraph(graphs)
    with torch.no_grad():
        z = AGGREGATIONS[aggregation]()(layers(batch), batch.batch)
    return {"features": z.numpy()}


if __name__ == "__main__":
    RDLogger.DisableLog("rdApp.*")
    FEATURIZER = SimpleMoleculeMolGraphFeaturizer()
    what, source, target, *files = sys.argv[1:]
    graphs = [graph(line) for line in Path(source).read_text().splitlines()]
    result = columns(graphs) if what == "columns" else outputs(graphs, *files)
    np.savez(target, **result)
