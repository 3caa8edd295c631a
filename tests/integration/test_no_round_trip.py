"""A training step on a device never waits for it: no number is read back, no copy blocks.

The meta device stands for a GPU here: it computes shapes only, so that any question
about a number fails, and every copy to it is seen.
"""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode

from molhpft.core.data import Rows, Task
from molhpft.core.network import Network, linear_head
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.gine import gine
from molhpft.domains.molecules.pretrain_gnns import (
    molclr_gcn,
    pretrain_gnns_gat,
    pretrain_gnns_gcn,
    pretrain_gnns_gin,
    pretrain_gnns_sage,
)
from molhpft.domains.vision.examples import Augmentation, Images
from molhpft.tuning import fit as optim
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from tests.marks import slow

SMILES = ["CCO", "C", "[Na+].[Cl-]", "c1ccccc1", "CC(C)(C)c1ccc(cc1)C#N.O", "O=C=O"] * 3


class Waiting(Exception):
    pass


class RefusesBlockingCopies(TorchDispatchMode):
    """Refuses copies between CPU and device that block, those hidden in an index included."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default:
            device = kwargs.get("device") or args[0].device
            if device.type != args[0].device.type and not kwargs.get("non_blocking"):
                raise Waiting(f"a copy from {args[0].device} to {device}")
        if function is torch.ops.aten.index.Tensor:
            indices = [index for index in args[1] if index is not None]
            if any(index.device != args[0].device for index in indices):
                raise Waiting("an index on another device than what it is taken from")
        return function(*args, **kwargs)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: torch.arange(3).to("meta"),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x.long().repeat_interleave(x.long()),
        lambda x: x.tolist(),
    ],
)
def test_what_would_wait_for_a_device_is_noticed(wait):
    with (
        RefusesBlockingCopies(),
        pytest.raises((Waiting, RuntimeError, NotImplementedError)),
    ):
        wait(torch.empty(3, device="meta"))


def task(objective):
    rng = torch.Generator().manual_seed(0)
    targets = torch.randint(2, (len(SMILES), 2), generator=rng).float()
    targets[:2] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    rows = torch.arange(len(SMILES))
    return molecule_task(
        "small",
        smiles=SMILES,
        targets=targets,
        target_names=["a", "b"],
        splits={"train": rows, "valid": rows, "test": rows},
        objective=objective,
    ).to("meta")


def test_batches_are_cut_without_waiting():
    on_device, rng = task(Multilabel()), torch.Generator()
    with RefusesBlockingCopies():
        batches = list(on_device.batches("train", size=5, rng=rng))
    assert sum(len(batch.inputs) for batch in batches) == len(SMILES)
    assert sum(len(batch.inputs.atoms) for batch in batches) == len(on_device.examples.store.atoms)
    assert all(batch.inputs.norm.is_meta and batch.targets.is_meta for batch in batches)


@pytest.mark.parametrize("objective", [Multilabel(), Multiclass(), Squared()], ids=repr)
def test_rows_are_cut_and_losses_taken_without_waiting(objective):
    targets = torch.zeros(8) if isinstance(objective, Multiclass) else torch.zeros(8, 3)
    targets = targets.long() if isinstance(objective, Multiclass) else targets
    rows = torch.arange(8)
    rows = Task("rows", Rows(torch.zeros(8, 3), targets), {"train": rows}, objective, 3).to("meta")
    with RefusesBlockingCopies():
        for batch in rows.batches("train", size=3, rng=torch.Generator()):
            logits = batch.inputs.requires_grad_()
            objective.loss(logits, batch.targets).backward()
            assert logits.grad.is_meta


def test_images_are_cut_and_augmented_without_waiting():
    views = Augmentation(flip=True, turn=10.0)
    images = Images(
        torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4).long(), augment=views
    )
    images, rng = images.to("meta"), torch.Generator()
    assert images.take(torch.arange(2)).inputs.is_meta  # numbers of the statistics are sent once
    with RefusesBlockingCopies():
        assert images.take(torch.arange(2), rng=rng).inputs.is_meta


@pytest.fixture
def steps(monkeypatch):
    """Grows by one with every step of an optimizer; plain ones, meta has none that are fused."""

    def plain(network, phase, *, adapters):
        own = [p for one in network.parameters() for p in adapters.in_place_of(one)]
        group = {"params": own, "base_lr": phase.lr}
        return torch.optim.Adam([group], lr=phase.lr)

    monkeypatch.setattr(optim, "make_optimizer", plain)
    taken = []
    hook = register_optimizer_step_post_hook(lambda *_: taken.append(1))
    yield taken
    hook.remove()


@pytest.fixture
def _no_autocast(monkeypatch):
    """PyTorch has autocast for a GPU, and refuses to be asked about it for meta."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


@pytest.fixture(params=["plain", "fused"])
def kernels(request, monkeypatch):
    """Plain operations, or those of the GPU but for the programs, which read no number anyway."""
    if request.param == "fused":
        pytest.importorskip("triton", exc_type=ImportError)
        from molhpft.kernels import gpu, ops

        monkeypatch.setattr(gpu, "_launch", lambda *_: None)
        monkeypatch.setattr(ops, "kernels_for", lambda *_, **__: gpu)


OTHERS = [
    partial(ogb_gcn, virtual_node=True),
    partial(ogb_gcn, jumping_knowledge=True, pool="mean+sum"),
    partial(gine, norm="layer", pool="attention"),
    pretrain_gnns_gcn,
    pretrain_gnns_sage,
    pretrain_gnns_gat,
    pretrain_gnns_gin,
    molclr_gcn,
]


# an anchor adds to the loss, whatever the network is
@pytest.mark.parametrize(
    ("build", "anchor"),
    [
        (ogb_gcn, 0.0),
        (ogb_gcn, 0.1),
        *(slow(build, 0.1) for build in OTHERS),
    ],
)
@pytest.mark.usefixtures("_no_autocast")
def test_an_epoch_asks_the_device_for_its_mean_loss_and_nothing_else(kernels, steps, build, anchor):
    backbone = build(layers=2, width=8)
    network = Network(backbone, linear_head(backbone.width, 2)).to("meta")
    phase = Phase(trains="all", epochs=1, lr=0.01, batch_size=5, anchor=anchor, schedule="cosine")
    small, rng = task(Multilabel()), torch.Generator().manual_seed(0)
    with RefusesBlockingCopies(), pytest.raises(RuntimeError, match=r"item\(\) cannot be called"):
        fit(network, phase, small, rng=rng)
    assert len(steps) == 4
