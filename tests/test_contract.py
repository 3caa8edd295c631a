"""What every encoder and head of the catalog must hold; a new entry is tested that day."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from molhpft.config.registry import ENCODERS, HEADS
from molhpft.core.data import Rows, Task
from molhpft.core.evaluate import take
from molhpft.core.network import Network
from molhpft.core.objectives import Multiclass
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.vision.examples import Images
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from tests.toy import same_weights

SMILES = ("CCO", "c1ccccc1N", "[Na+].[Cl-]", "C", "CC(=O)OC1CCCC1", "C#N", "CCCCCC", "O=C=O")
CLASSES = torch.arange(len(SMILES)) % 3


def images(targets):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (len(CLASSES), 3, 32, 32), dtype=torch.uint8, generator=rng)
    return Images(pixels, targets)


EXAMPLES = {
    (Molecules, "vectors"): lambda: Molecules(pack(SMILES), CLASSES, SMILES),
    (Rows, "vectors"): lambda: Rows(torch.rand(len(CLASSES), 28 * 28), CLASSES),
    (Images, "vectors"): lambda: images(CLASSES),
    (Images, "maps"): lambda: images(CLASSES[:, None, None].expand(-1, 32, 32).to(torch.uint8)),
}
# what stands behind a name: an encoder of the catalog and its options
VARIANTS = {
    **{name: (name, {}) for name in ENCODERS},
    **{
        f"{name}, {options}": (name, {"layers": 2, "width": 8, **options})
        for name in ("gcn", "gine")
        for options in (
            {"norm": "layer", "residual": True, "virtual_node": True},
            {"norm": "none", "pool": "attention"},
            {"jumping_knowledge": True, "pool": "mean+sum", "projection": 5},
            {"jumping_knowledge": True, "pool": "attention", "virtual_node": True},
        )
    },
}
PAIRS = [
    (name, head)
    for name, (encoder, options) in VARIANTS.items()
    for head in (HEADS if not options else ["linear"])
    if HEADS[head].reads == ENCODERS[encoder].gives
]

encoders = pytest.mark.parametrize("name", VARIANTS)


def task_for(name):
    encoder = ENCODERS[VARIANTS[name][0]]
    examples = EXAMPLES[encoder.takes, encoder.gives]()
    rows = torch.arange(len(CLASSES))
    return Task("contract", examples, {"train": rows, "valid": rows}, Multiclass(), outputs=3)


def network_of(name, head=None):
    """In eval mode, with batch statistics that are not those of initialisation."""
    torch.manual_seed(0)
    encoder, options = VARIANTS[name]
    backbone = ENCODERS[encoder].build(**options)
    head = head or next(h for n, h in PAIRS if n == name)
    network = Network(backbone, HEADS[head].build(backbone.width, 3)).train()
    network(task_for(name).examples.take(torch.arange(len(CLASSES))))
    return network.eval()


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_every_cut_leaves_the_function_unchanged_bit_for_bit(name, head):
    network = network_of(name, head)
    batch = task_for(name).examples.take(torch.arange(len(CLASSES)))
    with torch.no_grad():
        logits = network(batch)
        for stage in network.backbone.names:
            assert torch.equal(network.cut(stage)(batch), logits), stage


@encoders
def test_probing_leaves_every_number_of_the_backbone(name):
    network = network_of(name)
    before = deepcopy(network)
    phase = Phase(trains="head", epochs=2, lr=0.1, batch_size=4)
    fit(network, phase, task_for(name), rng=torch.Generator().manual_seed(0))
    assert same_weights(network.backbone, before.backbone)
    assert not same_weights(network.head, before.head)


@encoders
def test_probing_above_a_cut_leaves_every_number_below_it(name):
    network = network_of(name)
    network = network.cut(network.backbone.names[-2])
    before = deepcopy(network)
    phase = Phase(trains="head", epochs=1, lr=0.1, batch_size=4)
    fit(network, phase, task_for(name), rng=torch.Generator().manual_seed(0))
    assert same_weights(network.backbone, before.backbone)


@encoders
def test_finetuning_moves_every_weight_of_the_backbone(name):
    network = network_of(name)
    before = deepcopy(network.backbone)
    phase = Phase(trains="all", epochs=2, lr=0.01, batch_size=4)
    fit(network, phase, task_for(name), rng=torch.Generator().manual_seed(0))
    still = {
        k for k, v in before.named_parameters() if torch.equal(v, network.backbone.state_dict()[k])
    }
    assert still == set()


@encoders
def test_a_batch_equals_its_examples_one_by_one(name):
    network, task = network_of(name), task_for(name)
    together = take(network, task.batches("train", size=len(CLASSES)))
    alone = take(network, task.batches("train", size=1))
    torch.testing.assert_close(together.features, alone.features, rtol=1e-4, atol=1e-4)


@encoders
def test_features_are_as_wide_as_the_chain_says(name):
    network, task = network_of(name), task_for(name)
    features = take(network, task.batches("train", size=4)).features
    assert features.shape[:2] == (len(CLASSES), network.backbone.width)
    assert features.isfinite().all()


@encoders
def test_the_same_seed_gives_the_same_weights(name):
    assert same_weights(network_of(name), network_of(name))


@encoders
def test_a_snapshot_of_a_permuted_split_is_the_permuted_snapshot(name):
    network, task = network_of(name), task_for(name)
    order = torch.randperm(len(CLASSES), generator=torch.Generator().manual_seed(1))
    other = replace(task, splits={"train": order})
    ours, theirs = (take(network, t.batches("train", size=3)) for t in (other, task))
    torch.testing.assert_close(ours.features, theirs.features[order], rtol=1e-4, atol=1e-4)
