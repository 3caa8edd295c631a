"""A batch on another device, and in float64."""

import torch

from molhpft.core.network import Batch
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.graphs import pack


def test_a_batch_moves_whole():
    moved = Batch(torch.zeros(2, 3), torch.zeros(2, 1)).to("meta")
    assert moved.inputs.device.type == moved.targets.device.type == "meta"
    assert (moved.inputs.shape, moved.targets.shape) == ((2, 3), (2, 1))


def test_real_numbers_of_a_double_batch_are_in_float64_and_class_ids_stay():
    batch = Batch(torch.rand(2, 3), torch.tensor([0, 2]))
    double = batch.double()
    assert double.inputs.dtype == torch.float64
    assert torch.equal(double.inputs, batch.inputs.double())
    assert double.targets.dtype == torch.int64
    assert torch.equal(double.targets, batch.targets)
    assert Batch(torch.tensor([3]), torch.rand(1, 2)).double().targets.dtype == torch.float64


def test_a_double_batch_of_graphs_is_the_same_graphs_and_leaves_the_first_as_it_was():
    targets = torch.rand(2, 1)
    batch = Molecules(pack(("CCO", "C")), targets, ("CCO", "C")).take(torch.arange(2))
    double = batch.double()
    assert torch.equal(double.targets, targets.double())
    assert batch.targets.dtype == torch.float32
    assert type(double.inputs) is type(batch.inputs)
