"""State dicts of several schools of pretraining, written here as their tools write them."""

from copy import deepcopy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from molhpft.core.network import Batch, Network, linear_head
from molhpft.domains.vision.checkpoints import describe, load_resnet, supervised_head
from molhpft.domains.vision.resnet import cifar_resnet, resnet, resnet_chain
from molhpft.domains.weights import read_weights
from tests.domains.vision.foreign import TorchvisionResNet, with_random_statistics
from tests.toy import same_weights


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(3)
    return with_random_statistics(TorchvisionResNet())


@pytest.fixture(scope="module")
def start():
    torch.manual_seed(4)
    return resnet(depth=18)


@pytest.fixture
def ours(start):
    """To be loaded into; drawing eleven million weights anew takes longer than copying them."""
    return deepcopy(start)


def prefixed(prefix, module, *, drop=()):
    return {f"{prefix}{n}": v for n, v in module.state_dict().items() if not n.startswith(drop)}


def supervised(theirs):
    return prefixed("", theirs)


def data_parallel(theirs):
    return {"epoch": 90, "state_dict": prefixed("module.", theirs)}


def moco_v2(theirs):
    other = TorchvisionResNet()
    other.fc = theirs_head()
    query = prefixed("module.encoder_q.", theirs, drop="fc")
    head = {f"module.encoder_q.fc.{n}": v for n, v in other.fc.state_dict().items()}
    queue = {"module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1).long()}
    return {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": {**query, **head, **prefixed("module.encoder_k.", other), **queue},
    }


def theirs_head():
    return nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))


def simclr(theirs):
    projector = {f"projector.{n}": v for n, v in theirs_head().state_dict().items()}
    return {**prefixed("encoder.", theirs, drop="fc"), **projector}


def solo_learn(theirs):
    other = {f"classifier.{n}": v for n, v in nn.Linear(512, 10).state_dict().items()}
    momentum = prefixed("momentum_backbone.", TorchvisionResNet(), drop="fc")
    return {"state_dict": {**momentum, **prefixed("backbone.", theirs, drop="fc"), **other}}


def byol(theirs):
    target = prefixed("target_network.encoder.", TorchvisionResNet(), drop="fc")
    head = {f"online_network.projection.{n}": v for n, v in theirs_head().state_dict().items()}
    return {**target, **prefixed("online_network.encoder.", theirs, drop="fc"), **head}


def byol_twice_the_same(theirs):
    """lucidrains' BYOL stores the network it was given and its online encoder, which share it."""
    both = {**prefixed("net.", theirs), **prefixed("online_encoder.net.", theirs)}
    return {**both, **prefixed("target_encoder.net.", TorchvisionResNet())}


def lightly(theirs):
    numbered = nn.Sequential(*list(theirs.children())[:-1])
    return prefixed("backbone.", numbered)


SCHOOLS = [
    supervised,
    data_parallel,
    moco_v2,
    simclr,
    solo_learn,
    byol,
    byol_twice_the_same,
    lightly,
]


@pytest.mark.slow
@pytest.mark.parametrize("school", SCHOOLS, ids=lambda school: school.__name__)
def test_the_encoder_of_every_school_computes_its_own_features(school, theirs, ours, tmp_path, rng):
    path = tmp_path / "weights.pth"
    torch.save(school(theirs), path)
    load_resnet(ours, path)
    images = torch.randn(2, 3, 64, 64, generator=rng)
    features = ours.eval()(images, Batch(images, torch.zeros(2)))
    torch.testing.assert_close(theirs.fc(features), theirs(images))


def for_cifar(theirs):
    """The module with a 3 x 3 stem and no max-pool, as networks for CIFAR are built of it."""
    theirs = deepcopy(theirs)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return theirs


def pytorch_cifar(theirs):
    """Where shortcuts are called so, saved from DataParallel beside the accuracy."""
    tensors = prefixed("module.", theirs)
    renamed = {
        n.replace("fc", "linear").replace("downsample", "shortcut"): tensors[n] for n in tensors
    }
    return {"net": renamed, "acc": 95.0, "epoch": 199}


def simclr_for_cifar(theirs):
    """The children in a row without pool and classifier, beside a projection."""
    children = [child for name, child in theirs.named_children() if name not in ("maxpool", "fc")]
    head = {f"g.{n}": v for n, v in theirs_head().state_dict().items()}
    return {**prefixed("f.", nn.Sequential(*children)), **head}


@pytest.mark.parametrize(
    "school", [supervised, pytorch_cifar, simclr_for_cifar, solo_learn], ids=lambda s: s.__name__
)
def test_checkpoints_for_cifar_load_into_resnet_18_for_cifar(school, theirs, tmp_path, rng):
    theirs, ours, path = for_cifar(theirs), cifar_resnet(depth=18), tmp_path / "weights.pth"
    torch.save(school(theirs), path)
    load_resnet(ours, path)
    images = torch.randn(2, 3, 32, 32, generator=rng)
    features = ours.eval()(images, Batch(images, torch.zeros(2)))
    torch.testing.assert_close(theirs.fc(features), theirs(images))


@pytest.mark.parametrize(
    ("build", "make", "hint"),
    [
        (for_cifar, resnet, r"the encoder cifar_resnet has a stem of 3 x 3$"),
        (lambda theirs: theirs, cifar_resnet, r"the encoder resnet has a stem of 7 x 7$"),
    ],
    ids=["cifar", "imagenet"],
)
def test_a_file_with_the_other_stem_says_which_encoder_has_it(build, make, hint, theirs, tmp_path):
    torch.save(supervised(build(theirs)), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=hint):
        load_resnet(make(depth=18), tmp_path / "weights.pth")


def test_a_file_of_ours_gives_its_weights_back(ours, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(Network(ours, linear_head(512, 3)).state_dict(), path)
    torch.manual_seed(5)
    other = resnet(depth=18)
    assert not same_weights(other, ours)
    load_resnet(other, path)
    assert same_weights(other, ours)
    assert describe(read_weights(path)) == "a ResNet-18 (blocks 2, 2, 2, 2) stored as backbone.*"


def test_files_older_than_the_count_of_batches_fit(ours, theirs, tmp_path):
    old = {n: v for n, v in supervised(theirs).items() if not n.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    load_resnet(ours, tmp_path / "old.pth")
    assert torch.equal(ours.state_dict()["stages.stem.module.conv1.weight"], theirs.conv1.weight)


def test_weights_go_into_an_adapted_module_too(theirs, tmp_path):
    torch.save(moco_v2(theirs), tmp_path / "moco.pth")
    module = TorchvisionResNet()
    load_resnet(resnet_chain(module), tmp_path / "moco.pth")
    assert torch.equal(module.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)


@pytest.mark.parametrize(
    ("make", "difference"),
    [
        (lambda: resnet(depth=34), r"it needs stages\.layer1_2.*, which the file lacks"),
        (lambda: resnet(depth=50), r"conv1.weight is \(64, 64, 1, 1\) in it and \(64, 64, 3, 3\)"),
        (lambda: resnet(depth=18, channels=1), r"\(64, 1, 7, 7\) in it and \(64, 3, 7, 7\) in the"),
        (cifar_resnet, r"\(16, 3, 3, 3\) in it and \(64, 3, 7, 7\) in the file"),
    ],
    ids=["deeper", "bottleneck", "grey", "cifar"],
)
def test_another_architecture_is_refused_and_changes_nothing(make, difference, theirs, tmp_path):
    torch.save(moco_v2(theirs), tmp_path / "moco.pth")
    chain = make()
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    what = r"is a ResNet-18 \(blocks 2, 2, 2, 2\) stored as module\.encoder_q\.\*; this encoder"
    with pytest.raises(ValueError, match=f"{what} differs from it: .*{difference}"):
        load_resnet(chain, tmp_path / "moco.pth")
    assert all(torch.equal(value, before[name]) for name, value in chain.state_dict().items())


def test_a_deeper_file_is_refused(ours, tmp_path):
    save_file(Network(resnet(depth=34), linear_head(512, 3)).state_dict(), tmp_path / "34")
    with pytest.raises(ValueError, match=r"a ResNet-34 .*the file has .* it has no place for"):
        load_resnet(ours, tmp_path / "34")


def test_two_different_encoders_are_not_guessed_between(ours, theirs, tmp_path):
    both = {**prefixed("a.", theirs), **prefixed("b.", TorchvisionResNet())}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(ValueError, match=r"should hold one encoder; it has: a\., b\.: save"):
        load_resnet(ours, tmp_path / "both.pth")


def test_a_file_without_a_resnet_is_refused(ours, tmp_path):
    torch.save({"gnns.0.weight": torch.zeros(2)}, tmp_path / "gnn.pth")
    with pytest.raises(ValueError, match=r"no ResNet this package knows .*are gnns\.0\.weight\)"):
        load_resnet(ours, tmp_path / "gnn.pth")


def test_a_pickled_network_is_refused(ours, theirs, tmp_path):
    torch.save(theirs, tmp_path / "module.pth")
    with pytest.raises(ValueError, match="only unpickling would restore"):
        load_resnet(ours, tmp_path / "module.pth")


def test_the_head_of_a_supervised_file_computes_its_logits(ours, theirs, tmp_path, rng):
    torch.save(data_parallel(theirs), tmp_path / "weights.pth")
    load_resnet(ours, tmp_path / "weights.pth")
    network = Network(ours, supervised_head(tmp_path / "weights.pth")).eval()
    images = torch.randn(2, 3, 64, 64, generator=rng)
    torch.testing.assert_close(network(Batch(images, torch.zeros(2))), theirs(images))


def test_a_file_without_a_linear_classifier_has_no_head(theirs, tmp_path):
    torch.save(simclr(theirs), tmp_path / "simclr.pth")
    with pytest.raises(ValueError, match="should hold one classifier, fc or linear; it has: none"):
        supervised_head(tmp_path / "simclr.pth")
