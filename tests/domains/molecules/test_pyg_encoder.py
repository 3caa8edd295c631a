import subprocess
import sys

import pytest
import torch

from molhpft.core.network import Batch, Network, linear_head
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pyg import pyg_gnn

STORE = pack(["CCO", "", "c1ccccc1C", "[Na+].[Cl-]", "C"])
MODELS = ["gcn", "sage", "gin", "gat"]


def batch(*rows):
    return Batch(STORE.take(torch.tensor(rows)), torch.zeros(len(rows), 1))


def encoder(**options):
    torch.manual_seed(0)
    return pyg_gnn(**{"layers": 2, "width": 8, **options}).eval()


def features(chain, batch):
    with torch.no_grad():
        return chain(batch.inputs, batch)


@pytest.mark.parametrize("model", MODELS)
def test_every_molecule_has_its_features_and_one_without_atoms_has_zeros(model):
    z = features(encoder(model=model), batch(0, 1, 2, 3, 4))
    assert z.shape == (5, 8)
    assert z.isfinite().all()
    assert z.abs().sum(1).bool().tolist() == [True, False, True, True, True]


@pytest.mark.parametrize("model", MODELS)
def test_a_batch_equals_its_molecules_one_by_one(model):
    chain, rows = encoder(model=model), (2, 1, 0, 3, 4, 2)
    alone = torch.cat([features(chain, batch(row)) for row in rows])
    torch.testing.assert_close(features(chain, batch(*rows)), alone)


@pytest.mark.parametrize("jump", [None, "last", "cat", "max", "lstm"])
def test_moving_the_cut_leaves_the_function_unchanged(jump):
    chain = encoder(jump=jump)
    network, molecules = Network(chain, linear_head(chain.width, 2)).eval(), batch(0, 2, 3)
    assert chain.names == ["embed", "conv0", "conv1", *(["jump"] if jump else []), "pool"]
    for name in chain.names:
        assert torch.equal(network.cut(at=name)(molecules), network(molecules))


def test_the_options_decide_the_shape_of_the_encoder():
    assert encoder(layers=4, width=12).names[-2] == "conv3"
    assert encoder(width=12).width == 12
    mean, total = (features(encoder(pool=pool), batch(2)) for pool in ("mean", "sum"))
    torch.testing.assert_close(7 * mean, total)


def test_the_other_encoders_do_not_wait_for_torch_geometric():
    code = "import sys, molhpft.config.registry; print('torch_geometric' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
