"""Networks whose kernels and directions are known in closed form, molecules, and full Jacobians."""

import torch
from torch import nn
from torch.func import functional_call, jacrev

from molhpft.core.network import Batch, Chain, Network, Plain, linear_head
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.graphs import pack
from tests.toy import NAN

SMILES = ("CCO", "c1ccccc1C(=O)N", "CC(C)=O", "C", "OC1CC1")


def linear_network(*, inputs=5, width=4, outputs=3, seed=0):
    """z = B x and q = W z + b, in float64."""
    torch.manual_seed(seed)
    backbone = Chain({"linear": Plain(nn.Linear(inputs, width, bias=False), width=width)})
    return Network(backbone, linear_head(width, outputs)).double()


def smooth_network(*, inputs=5, width=4, outputs=3, seed=0):
    """Two tanh layers with a batch norm whose statistics are not the ones it began with."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(8)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    first = nn.Sequential(nn.Linear(inputs, 8), norm, nn.Tanh(), nn.Dropout(0.5))
    second = nn.Sequential(nn.Linear(8, width), nn.Tanh())
    backbone = Chain({"first": Plain(first, width=8), "second": Plain(second, width=width)})
    return Network(backbone, linear_head(width, outputs)).double()


def fresh_molecule_network(*, outputs=3, seed=0):
    torch.manual_seed(seed)
    return Network(ogb_gcn(layers=2, width=16), linear_head(16, outputs)).double()


def molecule_network(*, outputs=3, seed=0):
    """The same with batch-norm statistics of molecules, so that no rectifier is fed exactly 0."""
    network = fresh_molecule_network(outputs=outputs, seed=seed).train()
    for _ in range(3):
        network.features(molecule_batch())
    return network


def molecule_batch(smiles=SMILES):
    targets = torch.tensor([[1.0, 0, NAN], [0, NAN, 1], [1, 1, 0], [NAN, NAN, NAN], [0, 0, 1]])
    store = pack(smiles)
    return Batch(store.take(torch.arange(len(store))), targets[: len(store)].double())


def dense_batch(*, n=7, inputs=5, classes=3, seed=1):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, generator=rng, dtype=torch.float64)
    return Batch(x, torch.arange(n) % classes)


def rows_of(batch):
    """The examples of a dense batch, one by one."""
    return [
        Batch(batch.inputs[i : i + 1], batch.targets[i : i + 1]) for i in range(len(batch.targets))
    ]


def full_jacobian(network, batch):
    """dz/dtheta of a network in eval mode, (n, d, weights)."""
    network = network.eval()
    weights = {k: p.detach() for k, p in network.backbone.named_parameters()}
    by_name = jacrev(lambda w: functional_call(network.backbone, w, (batch.inputs, batch)))(weights)
    return torch.cat([jacobian.flatten(2) for jacobian in by_name.values()], dim=2)


def full_kernel(network, batch):
    """The eNTK without contraction, (n, d, n, d)."""
    jacobian = full_jacobian(network, batch)
    return torch.einsum("idp,jep->idje", jacobian, jacobian)
