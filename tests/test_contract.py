"""What every encoder, head and method of the catalog must hold; a new one is tested that day."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from molhpft.config.options import keywords
from molhpft.config.registry import ENCODERS, HEADS, METHODS
from molhpft.core.data import Rows, Task
from molhpft.core.evaluate import take
from molhpft.core.network import Network, linear_head
from molhpft.core.objectives import Multiclass
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.vision.examples import Images
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from tests.toy import Saving, same_weights, seeded, toy_network, toy_task

SMILES = ("CCO", "c1ccccc1N", "[Na+].[Cl-]", "C", "CC(=O)OC1CCCC1", "C#N", "CCCCCC", "O=C=O")
CLASSES = torch.arange(len(SMILES)) % 3


def images(targets):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (len(CLASSES), 3, 16, 16), dtype=torch.uint8, generator=rng)
    return Images(pixels, targets)


EXAMPLES = {
    (Molecules, "vectors"): lambda: Molecules(pack(SMILES), CLASSES, SMILES),
    (Rows, "vectors"): lambda: Rows(torch.rand(len(CLASSES), 28 * 28), CLASSES),
    (Images, "vectors"): lambda: images(CLASSES),
    (Images, "maps"): lambda: images(CLASSES[:, None, None].expand(-1, 16, 16).to(torch.uint8)),
}
# what makes an encoder cheap; resnet has depth 50, so that its blocks are tried anyway
SMALL = {"layers": 3, "width": 16}
SMALLER = {
    **{
        name: {k: v for k, v in SMALL.items() if k in keywords(e.build)}
        for name, e in ENCODERS.items()
    },
    "segmentation_resnet": {"depth": 18},
}
# what stands behind a name: an encoder of the catalog and its options
VARIANTS = {
    **{name: (name, SMALLER[name]) for name in ENCODERS},
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
    for head in (HEADS if name in ENCODERS else ["linear"])
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
def test_adapters_change_the_weights_of_linear_maps_alone_and_by_no_more_than_their_rank(name):
    network = network_of(name)
    before = deepcopy(network.backbone).state_dict()
    phase = Phase(trains="all", epochs=1, lr=0.01, batch_size=4, adapter_rank=2)
    rng = torch.Generator().manual_seed(0)
    fit(network, replace(phase, batch_norm="frozen"), task_for(name), rng=rng)
    after = network.backbone.state_dict()
    assert {k: v.shape for k, v in after.items()} == {k: v.shape for k, v in before.items()}
    moved = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert moved
    for key in moved:
        assert key.endswith("weight")
        change = (after[key] - before[key]).flatten(1).double()
        # a few random combinations of the columns have the rank of all
        sizes = torch.linalg.svdvals(change @ torch.randn(change.shape[1], 4).double())
        assert not (sizes[2:] > 1e-4 * sizes[0]).any(), key


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
def test_stages_that_say_so_give_a_row_for_each_node_first(name):
    network, task = network_of(name), task_for(name)
    batch = task.examples.take(torch.arange(len(CLASSES)))
    h, flags = batch.inputs, []
    for stage in network.backbone:
        h = stage(h, batch)
        flags.append(stage.gives_nodes)
        if stage.gives_nodes:
            assert len(h) >= len(batch.inputs.graph)
    # nodes until they are pooled
    assert flags == sorted(flags, reverse=True)
    assert any(flags) == (ENCODERS[VARIANTS[name][0]].takes is Molecules)


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


# what a method's options have to be beside their defaults, and with which it is plain finetuning
METHOD_OPTIONS = {
    "hp_ft": {"tau": (2,)},
    "ls_hp_ft": {"tau": (2,)},
    "ls_everywhere": {"tau": (2,)},
    "opposite_energy": {"tau": (2,)},
    "wise_ft": {"tau": (2,)},
    "dwise_ft": {"tau": (2,)},
    "uniform_soup": {"tau": (2,)},
    "greedy_soup": {"tau": (2,)},
    "flyp": {"tau": (2,), "pretraining": "toy"},
    "surgical": {"stages": ("layer1",)},
    "gradual": {"unfreeze_every": 2},
    "bss": {"spectral_shrinkage": 0.1},
    "lora": {"adapter_rank": 2},
    "linear_adapter": {"adapter_rank": 2, "adapter_scaling": 0.5},
}
NEUTRAL = {
    "scratch": {},
    "ft": {},
    "hp_ft": {"tau": (0,)},
    "ls_hp_ft": {"tau": (0,)},
    "ls_everywhere": {"tau": (0,), "smoothing": 0.0},
    "opposite_energy": {"tau": (0,), "smoothing": 0.0},
    "uniform_soup": {"tau": (0,)},
    "greedy_soup": {"tau": (0,)},
    "l2_sp": {"anchor": 0.0},
    "delta": {"stage_anchor": 0.0},
    "feature_distillation": {"feature_anchor": 0.0},
    "bss": {"spectral_shrinkage": 0.0},
    "gtot": {"node_transport": 0.0},
    "stochastic_norm": {"running_statistics": 0.0},
    "layerwise": {"layer_decay": 1.0},
    "surgical": {"stages": ("layer0", "layer1")},
    "gradual": {"unfreeze_every": 0, "layer_decay": 1.0},
}
# with what a method is a head phase: the backbone stays as it is
FROZEN = {"lora": {"adapter_rank": 0}, "linear_adapter": {"adapter_rank": 0}}
PROBE = Phase(trains="head", epochs=2, lr=0.05, batch_size=10)
FINETUNE = Phase(trains="all", epochs=4, lr=0.01, batch_size=10, keep="best", schedule="cosine")

methods = pytest.mark.parametrize("method", METHODS)


def small_graphs():
    torch.manual_seed(0)
    network = Network(ogb_gcn(layers=2, width=8, dropout=0.3), linear_head(8, 3))
    return network, task_for("gcn")


# what a method is tried on where dense layers are not enough: a network and its task
GROUNDS = {"gtot": small_graphs}


def start_of(method):
    return GROUNDS[method]()[0] if method in GROUNDS else toy_network(dropout=0.3)


def trained_by(phase, *callbacks, method="ft", seed=0):
    network = start_of(method)
    task = GROUNDS[method]()[1] if method in GROUNDS else toy_task()
    rows = fit(network, phase, task, rng=seeded(seed), callbacks=callbacks)
    return network, rows


def recipe_of(method):
    (recipe,) = METHODS[method](PROBE, FINETUNE, **METHOD_OPTIONS.get(method, {}))
    return recipe


@methods
def test_the_head_phase_of_a_method_leaves_every_number_of_the_backbone(method):
    probe = replace(recipe_of(method).probe, epochs=2)
    network, _ = trained_by(probe, method=method)
    start = start_of(method)
    assert same_weights(network.backbone, start.backbone)
    assert not same_weights(network.head, start.head)


@methods
def test_a_method_that_was_interrupted_ends_as_one_that_was_not(method):
    for phase in (recipe_of(method).probe, *recipe_of(method).after):
        saving = Saving(every=2)
        whole, rows = trained_by(phase, saving, method=method)
        for progress in saving.saved[::3]:
            resumed, again = trained_by(phase, Saving(progress), method=method, seed=99)
            assert again == rows
            assert same_weights(resumed, whole)


@pytest.mark.parametrize("method", NEUTRAL)
def test_a_method_with_its_neutral_setting_is_plain_finetuning_bit_for_bit(method):
    (recipe,) = METHODS[method](PROBE, FINETUNE, **NEUTRAL[method])
    (phase,) = recipe.after
    plain, plain_rows = trained_by(FINETUNE, method=method)
    network, rows = trained_by(phase, method=method)
    assert rows == plain_rows
    assert same_weights(network, plain)


HARDENED = replace(PROBE, epochs=4, perturbation=0.5)


def test_a_hardened_probe_leaves_every_number_of_the_backbone_and_resumes_exactly():
    saving, start = Saving(every=2), toy_network(dropout=0.3)
    whole, rows = trained_by(HARDENED, saving)
    assert same_weights(whole.backbone, start.backbone)
    for progress in saving.saved[::3]:
        resumed, again = trained_by(HARDENED, Saving(progress), seed=99)
        assert again == rows
        assert same_weights(resumed, whole)


def test_a_step_too_small_for_any_feature_is_the_plain_probe_bit_for_bit():
    plain, rows = trained_by(replace(HARDENED, perturbation=0.0))
    for size, is_plain in ((1e-20, True), (0.5, False)):
        network, hardened_rows = trained_by(replace(HARDENED, perturbation=size))
        assert same_weights(network, plain) == is_plain
        assert (hardened_rows == rows) == is_plain


@pytest.mark.parametrize(("name", "cut"), [("gcn", "conv0"), ("dmpnn", "pool"), ("gcn", None)])
def test_what_graph_layers_of_a_head_or_a_linear_one_read_can_be_perturbed(name, cut):
    phase = Phase(trains="head", epochs=1, lr=0.1, batch_size=4)
    trained = []
    for size in (0.0, 1e-20, 2.0):
        network = network_of(name)
        network = network.cut(cut) if cut else network
        rng = torch.Generator().manual_seed(0)
        fit(network, replace(phase, perturbation=size), task_for(name), rng=rng)
        trained.append(network)
    plain, unmoved, hardened = trained
    # fused and plain kernels sum in another order
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(unmoved.state_dict()[key], value, rtol=1e-3, atol=1e-3)
    assert same_weights(hardened.backbone, plain.backbone)
    assert not same_weights(hardened.head, unmoved.head)


@pytest.mark.parametrize("method", FROZEN)
def test_a_method_that_changes_nothing_of_the_backbone_is_a_head_phase_bit_for_bit(method):
    (recipe,) = METHODS[method](PROBE, FINETUNE, **FROZEN[method])
    (phase,) = recipe.after
    probed, probed_rows = trained_by(replace(FINETUNE, trains="head"))
    network, rows = trained_by(phase)
    assert rows == probed_rows
    assert same_weights(network, probed)
    assert same_weights(network.backbone, toy_network(dropout=0.3).backbone)
    assert not same_weights(trained_by(recipe_of(method).after[0])[0], network)


@pytest.mark.parametrize("method", NEUTRAL)
def test_what_a_method_says_of_finetuning_changes_what_is_trained(method):
    (phase,) = recipe_of(method).after
    network, plain = (trained_by(own, method=method)[0] for own in (phase, FINETUNE))
    assert same_weights(network, plain) == (phase == FINETUNE)
