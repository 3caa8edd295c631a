"""Two real processes that share every batch, against one that has it to itself."""

from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from molhpft.core.network import Chain, Network, Plain
from molhpft.core.objectives import Multiclass, Multilabel
from molhpft.tuning.distributed import ALONE, Machine
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from tests.toy import NAN, toy_task

# plain gradient descent: Adam would not notice gradients that are scaled
PHASE = Phase(trains="all", epochs=3, lr=0.1, batch_size=8, optimizer="sgd", keep="best")


def network():
    torch.manual_seed(0)
    backbone = Chain({"layer": Plain(nn.Sequential(nn.Linear(6, 5), nn.Tanh()), width=5)})
    return Network(backbone, Chain({"linear": Plain(nn.Linear(5, 3), width=3)}))


def task(objective):
    """Thirty-one examples to train on: batches of unequal parts; labels are missing in some."""
    made = toy_task(objective, n=93)
    if isinstance(objective, Multilabel):
        made.examples.targets[:20, 0] = NAN
    return made


def trained(objective, machine, *, setting):
    own = network()
    rng = torch.Generator().manual_seed(1)
    phase = replace(PHASE, **setting)
    rows = fit(own, phase, task(objective), rng=rng, machine=machine)
    return own.state_dict(), rows


def train_among_others(fabric, objective, folder, setting):
    machine = Machine(fabric)
    assert machine.processes == 2
    assert list(machine.ranks) == [0, 1]
    with machine.first_alone():
        # the second process finds what the first one leaves
        (folder / f"{(folder / '0').exists():d}").write_text(str(machine.rank))
    weights, rows = trained(objective, machine, setting=setting)
    agreed = machine.agreed(machine.rank)
    torch.save((weights, rows, agreed), folder / f"{machine.rank}.pt")
    machine.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("objective", "setting"),
    [
        (Multiclass(), {}),
        (Multilabel(), {}),
        (Multiclass(), {"batch_size": 3}),
        (Multiclass(), {"adapter_rank": 2}),
    ],
    ids=str,
)
def test_two_processes_train_as_one_does(objective, setting, tmp_path):
    whole, rows = trained(objective, ALONE, setting=setting)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_fork")
    fabric.launch(train_among_others, objective, tmp_path, setting)
    for rank in (0, 1):
        weights, shared_rows, agreed = torch.load(tmp_path / f"{rank}.pt")
        assert agreed == 0
        assert [row["loss"] for row in shared_rows] == pytest.approx([r["loss"] for r in rows])
        torch.testing.assert_close(weights, whole, rtol=1e-4, atol=1e-6)
        assert (tmp_path / str(rank)).read_text() == str(rank)


def test_a_machine_without_a_fabric_is_one_process_on_the_processor():
    assert (ALONE.processes, ALONE.rank, list(ALONE.ranks)) == (1, 0, [0])
    assert ALONE.device == torch.device("cpu")
    assert ALONE.agreed("value") == "value"
    rows = torch.ones(3, 2)
    assert ALONE.whole(rows, 3) is rows


def test_more_processes_than_examples_in_a_batch_are_refused():
    class Four(Machine):
        processes = 4

    phase = Phase(trains="all", epochs=1, lr=0.1, batch_size=3)
    with pytest.raises(ValueError, match=r"^batches of 2 examples cannot be shared by 4 processes"):
        fit(network(), phase, task(Multiclass()), rng=torch.Generator(), machine=Four())
