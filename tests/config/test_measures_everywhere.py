"""Every measure on every domain: it runs, at a cost that does not follow width or image size."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from math import isfinite
from time import process_time

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GIN

from molhpft.config.measures import (
    ALONG,
    AT_END,
    NAMES,
    TOGETHER,
    Branch,
    callbacks_along,
    check_measures,
    measure_branch,
    measure_run,
    phase_name,
)
from molhpft.core.data import Rows, Task
from molhpft.core.network import Network, cosine_head, linear_head, mlp_head, side_tuned
from molhpft.core.objectives import ClassContrast, Joint, Multiclass, Multilabel, Squared
from molhpft.domains.graphs.backbones import gnn_backbone
from molhpft.domains.graphs.tasks import pyg_task
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.gcn import ogb_gcn, pretrain_gnns_gcn
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pyg import pyg_gnn
from molhpft.domains.toy.digits import toy_mlp
from molhpft.domains.toy.linear import linear_network, linear_task
from molhpft.domains.vision.examples import Images
from molhpft.domains.vision.resnet import cifar_resnet
from molhpft.domains.vision.segmentation import aspp_head, segmentation_resnet, shapes_task
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from molhpft.tuning.recipes import Recipe
from tests.toy import NAN

SMILES = ("CCO", "c1ccccc1N", "C1CC1", "C", "CC(=O)OC1CCCC1", "C#N", "CCCC", "O=C=O")
N = len(SMILES)
PHASE = Phase(trains="all", epochs=1, lr=1e-3, batch_size=4, optimizer="sgd", momentum=0.0)
SECONDS = 60.0  # of a processor: of each measure the slowest takes a few


def over_all(name, examples, objective, outputs):
    rows = torch.arange(N)
    return Task(name, examples, {"train": rows, "valid": rows}, objective, outputs)


def molecules(*columns):
    y = torch.tensor([[0.0, 1], [1, 0], [1, NAN], [0, NAN], [1, 1], [NAN, NAN], [0, 0], [1, 0]])
    return Molecules(pack(SMILES), torch.cat([y, *columns], dim=1), SMILES)


def images():
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (N, 3, 16, 16), dtype=torch.uint8, generator=rng)
    return Images(pixels, torch.arange(N) % 3)


def graph_task():
    ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    rng = torch.Generator().manual_seed(0)
    graphs = [
        Data(x=torch.randn(4, 5, generator=rng), edge_index=ring, y=torch.tensor([i % 2]))
        for i in range(N)
    ]
    splits = {"train": range(N), "valid": range(N)}
    return pyg_task(graphs, splits=splits, objective=Multiclass(), name="rings", classes=2)


def toy_digits(objective):
    inputs = torch.rand(N, 28 * 28, generator=torch.Generator().manual_seed(0))
    return over_all("toy", Rows(inputs, torch.arange(N) % 3), objective, 3)


def gcn_task():
    return over_all("molecules", molecules(), Multilabel(), 2)


def linear():
    task = linear_task()
    task = replace(task, splits={**task.splits, "valid": task.rows("train")})
    return task, linear_network(rng=torch.Generator().manual_seed(0))


def served_beside():
    kept = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
    objective = Joint(Multilabel(), Squared(), outputs=2, weight=0.5)
    return over_all("flyp", molecules(kept), objective, 5)


DOMAINS = {
    "toy": lambda: (toy_digits(Multiclass()), Network(toy_mlp(), linear_head(128, 3))),
    "toy, class contrast": lambda: (
        toy_digits(ClassContrast()),
        Network(toy_mlp(), cosine_head(128, 3)),
    ),
    "vision": lambda: (
        over_all("images", images(), Multiclass(), 3),
        Network(cifar_resnet(), linear_head(64, 3)),
    ),
    "segmentation": lambda: (
        shapes_task(images=8, size=16),
        Network(segmentation_resnet(depth=18), aspp_head(512, 4, hidden=8, rates=(1, 2))),
    ),
    "graphs": lambda: (
        graph_task(),
        Network(gnn_backbone(GIN(5, 8, 2, norm="batch_norm")), linear_head(8, 2)),
    ),
    "molecules, pyg": lambda: (
        gcn_task(),
        Network(pyg_gnn(model="gin", layers=2, width=16), linear_head(16, 2)),
    ),
    "molecules": lambda: (gcn_task(), Network(ogb_gcn(layers=2, width=16), mlp_head(16, 2))),
    "molecules, virtual node": lambda: (
        gcn_task(),
        Network(ogb_gcn(layers=2, width=16, virtual_node=True), linear_head(16, 2)),
    ),
    "molecules, cut": lambda: (
        gcn_task(),
        Network(pretrain_gnns_gcn(layers=2, width=16), linear_head(16, 2)).cut("conv1"),
    ),
    "molecules, side-tuning": lambda: (
        gcn_task(),
        Network(side_tuned(ogb_gcn(layers=2, width=16)), linear_head(16, 2)),
    ),
    "molecules, flyp": lambda: (
        served_beside(),
        Network(ogb_gcn(layers=2, width=16), linear_head(16, 5)),
    ),
    "linear": linear,
}


@cache
def branch_of(domain):
    torch.manual_seed(0)
    task, start = DOMAINS[domain]()
    end = deepcopy(start)
    rows = fit(end, PHASE, task, rng=torch.Generator().manual_seed(0))
    recipe = Recipe(replace(PHASE, trains="head", epochs=0), (PHASE,))
    return Branch(start, end, task, recipe, [{"phase": phase_name(0), **row} for row in rows], 0)


def numbers_in(value):
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(part)
    elif isinstance(value, float):
        yield value


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", NAMES)
def test_a_measure_runs_on_a_domain_or_refuses_it_before_training(name, domain):
    branch = branch_of(domain)
    begun = process_time()
    if name == "confidence" and domain == "linear":
        with pytest.raises(ValueError, match=r"measure confidence is .* leave confidence out"):
            check_measures([name], branch.task)
        return
    check_measures([name], branch.task)
    results = []
    if name in ALONG:
        (along,) = callbacks_along([name], branch.start, branch.task, seed=0)
        results.append(along.measure(branch.end))
    if name in AT_END:
        results.append(measure_branch([name], branch)[name])
    if name in TOGETHER:
        results.append(measure_run([name], [branch.start, branch.end], branch.task))
    numbers = list(numbers_in(results))
    assert numbers
    assert all(map(isfinite, numbers))
    assert process_time() - begun < SECONDS


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_first_step_is_as_its_decomposition_predicts(domain):
    error = measure_branch(["decomposition"], branch_of(domain))["decomposition"]
    assert error["first_order_error"] < 0.1


@pytest.mark.parametrize("outputs", [4, 400])
def test_the_head_is_asked_no_more_often_where_it_has_more_logits(outputs, monkeypatch):
    inputs = torch.rand(N, 28 * 28, generator=torch.Generator().manual_seed(0))
    task = over_all("wide", Rows(inputs, torch.zeros(N, outputs)), Squared(), outputs)
    asked = []
    network = Network(toy_mlp(), linear_head(128, outputs))
    (along,) = callbacks_along(["direction"], network, task, seed=0)
    gradient = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: asked.append(1) or gradient(*a, **k)
    )
    along.measure(network)
    assert len(asked) == N * min(outputs, 16)
