"""Columns behind the features of a network, on the scale of its training split."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

from molhpft.core.beside import STAGE, Beside, with_columns
from molhpft.core.network import Batch, Chain, Network, Stage, linear_head
from molhpft.core.objectives import Squared
from molhpft.core.scale import fit_scale
from molhpft.tuning.optimizer import make_optimizer
from molhpft.tuning.phase import Phase
from tests.toy import toy_task

COLUMNS = {"counts": 4, "numbers": 3}


@dataclass
class Inputs:
    x: Tensor
    beside: dict[str, Tensor] = field(default_factory=dict)

    def to(self, device):
        return self


@dataclass
class Examples:
    inputs: Inputs
    targets: Tensor

    def __len__(self):
        return len(self.targets)

    def take(self, index, *, rng=None):
        beside = {name: values[index] for name, values in self.inputs.beside.items()}
        return Batch(Inputs(self.inputs.x[index], beside), self.targets[index])

    def to(self, device):
        return self


class First(Stage):
    width = 2

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, h, batch):
        return self.linear(h.x)


def made(n=200):
    """A network of two features, a task with columns, and the columns by name."""
    rng = torch.Generator().manual_seed(0)
    beside = {
        "counts": torch.randint(0, 256, (n, 4), generator=rng, dtype=torch.uint8),
        "numbers": torch.randn(n, 3, generator=rng) * torch.tensor([1.0, 50.0, 1e4]) + 7,
    }
    beside["numbers"][5, 1] = torch.nan
    inputs = Inputs(torch.randn(n, 2, generator=rng), beside)
    splits = {"train": torch.arange(n // 2), "valid": torch.arange(n // 2, n)}
    task = replace(
        toy_task(Squared()), examples=Examples(inputs, torch.zeros(n, 1)), outputs=1, splits=splits
    )
    return Network(Chain({"first": First()}), linear_head(2 + 7, 1)), task, beside


def test_features_are_followed_by_logarithms_of_counts_and_numbers_on_the_scale_of_training():
    network, task, beside = made()
    moved = with_columns(network, task, COLUMNS)
    batch = task.examples.take(torch.arange(200))
    z = moved.features(batch).detach()
    torch.testing.assert_close(z[:, :2], network.features(batch).detach(), rtol=0, atol=0)
    torch.testing.assert_close(z[:, 2:6], (1 + beside["counts"].float()).log())
    expected = fit_scale(beside["numbers"][:100].numpy()).filled(beside["numbers"].double()).float()
    torch.testing.assert_close(z[:, 6:], expected, rtol=1e-5, atol=1e-5)
    assert not z[5, 7]
    assert moved.backbone.width == 9


def test_columns_are_where_their_own_names_are_whatever_else_a_batch_holds():
    network, task, beside = made()
    moved = with_columns(network, task, {"numbers": 3, "counts": 4})
    task.examples.inputs.beside = {"more": beside["counts"] + 1, **beside}
    z = moved.features(task.examples.take(torch.arange(9))).detach()
    torch.testing.assert_close(z[:, 5:], (1 + beside["counts"][:9].float()).log())


def test_examples_without_the_columns_are_refused_by_name():
    network, task, _ = made()
    moved = with_columns(network, task, COLUMNS)
    del task.examples.inputs.beside["numbers"]
    words = "reads counts, numbers beside features, and the examples come without numbers"
    with pytest.raises(ValueError, match=words):
        moved.features(task.examples.take(torch.arange(3)))


def test_the_columns_are_no_layer_of_the_encoder_and_nothing_of_them_is_trained():
    network, task, _ = made()
    phase = Phase(trains="all", epochs=1, lr=1.0, layer_decay=0.5)
    rates = [
        [group["base_lr"] for group in make_optimizer(one, phase).param_groups]
        for one in (network, with_columns(network, task, COLUMNS))
    ]
    assert rates == [[1.0, 0.5], [1.0, 0.5]]


def test_the_scale_is_in_the_state_and_finite_also_of_columns_that_do_not_vary():
    network, task, beside = made()
    beside["numbers"][:, 2] = 3.0
    beside["numbers"][:, 0] = torch.nan
    state = with_columns(network, task, COLUMNS).backbone.stages[STAGE].state_dict()
    assert all(values.isfinite().all() for values in state.values())
    again = Beside(2, COLUMNS)
    again.load_state_dict(state)
    batch = task.examples.take(torch.arange(4))
    z = again(torch.zeros(4, 2), batch)
    assert not z[:, [6, 8]].any()


def test_a_column_is_cut_at_its_outer_hundredths():
    values = torch.arange(1001.0)[:, None]
    scale = fit_scale(values.numpy())
    assert (scale.low.item(), scale.high.item()) == (10, 990)
    found = scale.filled(values.double())
    assert found[0] == found[10] < found[11]
    assert found.mean().item() == pytest.approx(0, abs=1e-12)
    assert found.std(correction=0).item() == pytest.approx(1)
