"""DeepLabV3 as two chains, drawn shapes, and PASCAL VOC's real folder layout around them."""

import numpy as np
import pytest
import torch
from PIL import Image

from molhpft.core.evaluate import Predictions
from molhpft.core.network import Batch, Network
from molhpft.core.objectives import Multiclass
from molhpft.domains.vision.examples import IGNORE
from molhpft.domains.vision.segmentation import (
    SHAPES,
    VOC_CLASSES,
    aspp_head,
    draw_shapes,
    segmentation_resnet,
    shapes_task,
    voc_task,
)
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


@pytest.mark.slow
def test_finetuning_learns_to_segment_shapes(rng):
    task, network = shapes_task(images=128, size=32), small_network()
    before = score(network, task, "test")
    phase = Phase(trains="all", epochs=20, lr=0.003, batch_size=8, schedule="cosine")
    fit(network, phase, task, rng=rng)
    assert before < 0.3
    assert score(network, task, "test") > 0.55


def drawn(n=200, size=48, seed=0):
    return draw_shapes(n, size=size, rng=torch.Generator().manual_seed(seed))


def test_shapes_differ_from_the_noise_behind_them_and_are_of_one_colour():
    images = drawn(20)
    for pixels, mask in zip(images.pixels, images.targets, strict=True):
        assert pixels[:, mask == 0].max() < 100
        for kind in set(mask.unique().tolist()) - {0, 255}:
            assert len(pixels[:, mask == kind].unique(dim=1).T) <= 2  # two of a kind
            assert pixels[:, mask == kind].min() >= 100


def test_all_classes_occur_and_outlines_are_unlabelled():
    masks = drawn().targets
    fractions = torch.bincount(masks.flatten(), minlength=256) / masks.numel()
    assert fractions[0] > 0.5
    assert (fractions[1 : len(SHAPES)] > 0.02).all()
    assert 0.02 < fractions[255] < 0.15
    assert fractions[len(SHAPES) : 255].sum() == 0


def test_every_border_between_classes_is_unlabelled():
    """Only where the second shape lies inside the first's colour could classes touch: never."""
    masks = drawn(50).targets.long()
    right = (masks[:, :, 1:] != masks[:, :, :-1]) & (masks[:, :, 1:] != 255)
    touching = right & (masks[:, :, :-1] != 255)
    assert touching.sum() < 0.002 * masks.numel()


def test_a_seed_decides_every_pixel():
    assert torch.equal(drawn(4).pixels, drawn(4).pixels)
    assert not torch.equal(drawn(4).pixels, drawn(4, seed=1).pixels)


def test_the_task_has_three_splits_without_a_common_image():
    task = shapes_task(images=40, size=32)
    assert {split: len(rows) for split, rows in task.splits.items()} == {
        "train": 20,
        "valid": 10,
        "test": 10,
    }
    images = {image.numpy().tobytes() for image in task.examples.pixels}
    assert len(images) == 40
    assert task.objective == Multiclass(metric="miou", ignore=255)
    assert task.target_names == SHAPES


def palette_png(path, ids):
    mask = Image.fromarray(np.asarray(ids, dtype=np.uint8), mode=None)
    coloured = mask.convert("P")
    coloured.putdata(np.asarray(ids).reshape(-1).tolist())
    coloured.putpalette([k * 37 % 256 for k in range(768)])
    coloured.save(path)


@pytest.fixture
def folder(tmp_path):
    """Twelve images of 40 x 30 pixels, ten in train.txt and two in val.txt."""
    shapes = draw_shapes(12, size=40, rng=torch.Generator().manual_seed(0))
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "Annotations"):
        (tmp_path / name).mkdir(parents=True)
    names = [f"2007_{k:06}" for k in range(12)]
    for name, pixels, mask in zip(names, shapes.pixels, shapes.targets, strict=True):
        image = Image.fromarray(pixels[:, :30].permute(1, 2, 0).contiguous().numpy())
        image.save(tmp_path / "JPEGImages" / f"{name}.jpg", quality=95)
        palette_png(tmp_path / "SegmentationClass" / f"{name}.png", mask[:30].numpy())
    lists = tmp_path / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("\n".join(names[:10]) + "\n")
    (lists / "val.txt").write_text("\n".join(names[10:]) + "\n")
    return tmp_path


def test_val_is_kept_for_testing_and_validation_comes_out_of_train(folder):
    task = voc_task(path=folder, size=40)
    assert {split: len(rows) for split, rows in task.splits.items()} == {
        "train": 9,
        "valid": 1,
        "test": 2,
    }
    assert (task.name, task.outputs, task.target_names) == ("voc", 21, VOC_CLASSES)
    assert task.objective == Multiclass(metric="miou", ignore=255)


def test_masks_are_the_ids_of_the_palette_and_padding_is_unlabelled(folder):
    task = voc_task(path=folder, size=40)
    batch = next(task.batches("test", size=2))
    shapes = draw_shapes(12, size=40, rng=torch.Generator().manual_seed(0))
    assert batch.targets.dtype == torch.int64
    assert torch.equal(batch.targets[:, 5:35], shapes.targets[10:, :30].long())
    assert (batch.targets[:, :5] == 255).all()
    assert (batch.targets[:, 35:] == 255).all()


def test_images_stay_aligned_with_their_masks_and_are_padded_with_the_mean(folder):
    task = voc_task(path=folder, size=40)
    batch = next(task.batches("test", size=2))
    assert batch.inputs[:, :, :5].abs().max() < 0.01
    brightness = batch.inputs.mean(1)
    inside, behind = batch.targets.clamp(max=254) % 254 > 0, batch.targets == 0
    assert brightness[inside].mean() > brightness[behind].mean() + 1


def test_a_seed_decides_the_validation_images(folder):
    fingerprints = [voc_task(path=folder, size=16, valid=4, seed=s).fingerprint for s in (0, 0, 1)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


@pytest.mark.parametrize("valid", [0, 10])
def test_training_and_validation_both_need_images(valid, folder):
    with pytest.raises(ValueError, match=r"from 1 to 9, .* from the 10 of train\.txt"):
        voc_task(path=folder, valid=valid)


@pytest.mark.parametrize(
    "name",
    [
        "ImageSets/Segmentation/val.txt",
        "JPEGImages/2007_000003.jpg",
        "SegmentationClass/2007_000003.png",
    ],
)
def test_an_absent_file_is_named(name, folder):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"should hold {name}; it is absent"):
        voc_task(path=folder, size=16)


def test_a_mask_of_colours_instead_of_ids_is_refused(folder):
    Image.new("RGB", (40, 30)).save(folder / "SegmentationClass" / "2007_000003.png")
    with pytest.raises(
        ValueError, match=r"2007_000003\.png .* one class id for each pixel .* mode RGB"
    ):
        voc_task(path=folder, size=16)


def test_an_id_without_a_class_is_refused(folder):
    path = folder / "SegmentationClass" / "2007_000003.png"
    palette_png(path, np.full((30, 40), 21))
    with pytest.raises(ValueError, match="lie from 0 to 20, or are 255; found 21"):
        voc_task(path=folder, size=16)


def test_absent_voc_is_one_sentence_on_what_should_be_there_and_where_it_is(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"at .*absent; .*VOCdevkit/VOC2012 .*at http://host"
    ):
        voc_task(path=tmp_path / "absent")
