"""DeepLabV3 as two chains, on shapes drawn by the package."""

import pytest
import torch

from molhpft.core.evaluate import Predictions
from molhpft.core.network import Batch, Network
from molhpft.domains.vision.examples import IGNORE
from molhpft.domains.vision.segmentation import aspp_head, segmentation_resnet
from molhpft.domains.vision.segmentation_tasks import shapes_task
from molhpft.measure.features import initial_energy
from molhpft.tuning.fit import fit, score
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.phase import Phase


@pytest.fixture
def batch(rng):
    images = torch.randn(2, 3, 64, 48, generator=rng)
    return Batch(images, torch.zeros(2, 64, 48, dtype=torch.long))


def small_network(outputs=4):
    torch.manual_seed(0)
    backbone = segmentation_resnet(depth=18, output_stride=8).split("layer2.0")[0]  # stride 4
    return Network(backbone, aspp_head(64, outputs, hidden=16, rates=(2, 4), dropout=0.0))


def test_the_head_has_the_size_of_torchvisions_deeplabv3():
    """42,004,074 published, less ResNet-50 without classifier and the auxiliary head."""
    head = aspp_head(2048, 21)
    assert sum(p.numel() for p in head.parameters()) == 42_004_074 - 23_508_032 - 2_365_205


def test_features_have_a_step_for_eight_pixels(batch):
    backbone = segmentation_resnet(depth=18)
    assert backbone.names[-1] == "layer4.1"
    assert backbone.eval()(batch.inputs, batch).shape == (2, 512, 8, 6)


def test_logits_have_the_size_of_the_image(batch):
    network = small_network().eval()
    assert network(batch).shape == (2, 4, 64, 48)
    assert network.head.width == 4


def test_the_size_is_that_of_the_batch_not_of_the_features(batch):
    network = small_network().eval()
    z = network.features(batch)
    odd = Batch(torch.zeros(2, 3, 61, 50), batch.targets)
    assert network.head(z, odd).shape == (2, 4, 61, 50)


def test_pooled_features_are_refused(batch):
    with pytest.raises(ValueError, match=r"reads feature maps .*, got features \(2, 64\); use an"):
        aspp_head(64, 4)(torch.zeros(2, 64), batch)


def test_every_stage_of_the_head_is_as_wide_as_it_says(batch):
    network = small_network().eval()
    h = network.features(batch)
    for stage in network.head:
        h = stage(h, batch)
        assert h.shape[1] == stage.width


def test_moving_the_cut_leaves_the_function_unchanged(batch):
    network = small_network().eval()
    assert torch.equal(network.cut("layer1.1")(batch), network(batch))


def test_the_pooled_branch_lets_every_pixel_see_the_whole_image(batch):
    head = small_network().head.eval()
    z = torch.randn(1, 64, 16, 12, generator=torch.Generator().manual_seed(0))
    changed = z.clone()
    changed[:, :, 15, 11] += 100
    a, b = (head.stages["aspp"](x, batch) for x in (z, changed))
    assert not torch.equal(a[:, :, 0, 0], b[:, :, 0, 0])


def test_a_segmentation_head_is_probed_live_and_its_backbone_left_alone(rng):
    task, network = shapes_task(images=16, size=32), small_network()
    assert on_features(network, task) == (network, task)
    before = {n: v.clone() for n, v in network.backbone.state_dict().items()}
    head = {n: v.clone() for n, v in network.head.state_dict().items()}
    fit(network, Phase(trains="head", epochs=1, lr=0.01, batch_size=4), task, rng=rng)
    assert all(torch.equal(v, before[n]) for n, v in network.backbone.state_dict().items())
    assert not all(torch.equal(v, head[n]) for n, v in network.head.state_dict().items())


def test_energy_is_zero_for_the_perfect_mask_whatever_stands_on_unlabelled_pixels(rng):
    task = shapes_task(images=8, size=32)
    targets = next(task.batches("train", size=8)).targets
    perfect = torch.nn.functional.one_hot(targets.clamp(max=3), 4).movedim(-1, 1) * 90.0
    wild = torch.where((targets == IGNORE)[:, None], torch.randn(4, 4, 32, 32) * 9, perfect)
    for logits in (perfect, wild):
        energy = initial_energy(Predictions(logits, targets), task.objective)
        assert energy == pytest.approx(0, abs=1e-6)
        assert task.objective.score(logits, targets) == 1.0
    wrong = initial_energy(Predictions(wild.roll(1, 1), targets), task.objective)
    assert wrong == pytest.approx(2**0.5, abs=1e-4)


def test_finetuning_learns_to_segment_shapes(rng):
    task, network = shapes_task(images=128, size=32), small_network()
    before = score(network, task, "test", size=32)
    phase = Phase(trains="all", epochs=20, lr=0.003, batch_size=8, schedule="cosine")
    fit(network, phase, task, rng=rng)
    assert before < 0.3
    assert score(network, task, "test", size=32) > 0.55
