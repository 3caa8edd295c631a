"""Views against the plain operations that they stand for; images as examples and as a task."""

from math import pi

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.objectives import Multiclass
from molhpft.domains.vision.examples import (
    AUGMENTATIONS,
    IMAGENET,
    UNCHANGED,
    Augmentation,
    Images,
    Labelled,
    labelled_task,
    warp,
    warp_labels,
)

EVERYTHING = Augmentation(flip=True, shift=0.2, zoom=0.3, turn=30)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, height=12, width=16, seed=1):
    return torch.rand(n, 3, height, width, generator=seeded(seed))


def views(augment, x, seed=0):
    maps = augment.draw(len(x), height=x.shape[2], width=x.shape[3], rng=seeded(seed))
    return warp(x, maps)


def test_nothing_is_drawn_for_what_does_not_happen():
    rng = seeded()
    before = rng.get_state()
    UNCHANGED.draw(5, height=8, width=8, rng=rng)
    assert torch.equal(rng.get_state(), before)


def test_a_flip_mirrors_about_half_of_the_images_and_nothing_else():
    x = images(n=200)
    y = views(Augmentation(flip=True), x)
    mirrored = (y - x.flip(3)).abs().flatten(1).amax(1) < 1e-5
    same = (y - x).abs().flatten(1).amax(1) < 1e-5
    assert (mirrored ^ same).all()
    assert 70 < mirrored.sum() < 130


def test_a_shift_is_padding_with_zeros_and_cropping_at_a_whole_pixel():
    x = images(n=60, height=16, width=16)
    y = views(Augmentation(shift=1 / 8), x)
    padded = torch.nn.functional.pad(x, [2] * 4)
    places = [(i, j) for i in range(5) for j in range(5)]
    crops = torch.stack([padded[:, :, i : i + 16, j : j + 16] for i, j in places])
    distance = (crops - y).abs().flatten(2).amax(2)
    assert (distance.amin(0) < 1e-4).all()
    assert len(distance.argmin(0).unique()) > 15  # of 25 places, among 60 images


def test_a_zoom_shows_a_part_of_the_image_and_nothing_outside():
    ramp = torch.linspace(0.2, 0.8, 32).expand(200, 1, 32, 32)
    y = views(Augmentation(zoom=0.2), ramp)
    assert 0.2 - 1e-5 <= y.min() < 0.25
    assert 0.75 < y.max() <= 0.8 + 1e-5
    seen = (y[:, 0, 0, -1] - y[:, 0, 0, 0]) / 0.6  # fraction of the width that each view shows
    assert seen.min() > (0.2 * 3 / 4) ** 0.5 - 0.05
    assert seen.max() > 0.9


def test_crops_keep_their_fraction_of_the_area_and_are_not_too_slim():
    maps = Augmentation(zoom=0.4).draw(500, height=10, width=10, rng=seeded())
    wide, high = maps[:, 0, 0], maps[:, 1, 1]
    assert (wide * high).min() > 0.3  # a slim crop of nearly everything is cut off at the rim
    assert ((wide / high) < 4 / 3 + 1e-4).all()
    assert ((wide / high) > 3 / 4 - 1e-4).all()
    assert ((maps[:, :, 2].abs() + torch.stack([wide, high], 1)) < 1 + 1e-4).all()


def test_a_quarter_turn_is_that_of_torch():
    x = images(height=9, width=9)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0]]).expand(len(x), 2, 3)
    turned = warp(x, quarter)
    torch.testing.assert_close(turned, torch.rot90(x, 1, (2, 3)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(20, 20), (20, 40)])
def test_a_turn_keeps_lengths_and_stays_within_its_angle(height, width):
    maps = Augmentation(turn=20).draw(100, height=height, width=width, rng=seeded())
    pixels = torch.tensor([width / 2, height / 2])
    rotation = maps[:, :, :2] * pixels[:, None] / pixels  # in pixels instead of half sides
    eye = (rotation @ rotation.mT - torch.eye(2)).abs().max()
    assert eye < 1e-5
    angle = rotation[:, 1, 0].asin() * 180 / pi
    assert 15 < angle.abs().max() <= 20


def test_what_lies_outside_is_black():
    corner = views(Augmentation(turn=45), torch.ones(50, 1, 32, 32))[:, 0, 0, 0]
    assert corner.min() == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_masks_stay_aligned_with_their_images(seed):
    """An image whose values are its labels shows, inside the areas, what its mask says."""
    blocks = torch.randint(1, 5, (4, 6, 6), generator=seeded(seed))
    labels = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    maps = EVERYTHING.draw(4, height=48, width=48, rng=seeded(seed))
    seen = warp(labels[:, None].float(), maps)[:, 0]
    mask = warp_labels(labels.byte(), maps, ignore=255)
    inside = (mask != 255) & (seen == seen.round())  # no blend of two areas
    assert (seen == mask)[inside].float().mean() > 0.97
    assert (seen[mask == 255] == 0).all()
    assert set(mask.unique().tolist()) <= {1, 2, 3, 4, 255}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_generator_decides_every_view(name):
    x = images()
    assert torch.equal(views(AUGMENTATIONS[name], x, seed=5), views(AUGMENTATIONS[name], x, seed=5))
    if name != "none":
        assert not torch.equal(
            views(AUGMENTATIONS[name], x, seed=5), views(AUGMENTATIONS[name], x, seed=6)
        )


@pytest.mark.parametrize("wrong", [{"zoom": 0.0}, {"zoom": 1.5}, {"shift": 1.0}, {"shift": -0.1}])
def test_a_fraction_outside_its_range_is_refused(wrong):
    with pytest.raises(ValueError, match=r"zoom should lie in \(0, 1\] and shift in \[0, 1\)"):
        Augmentation(**wrong)


def labelled(n, *, channels=3, seed=0, classes=("a", "b", "c"), masks=False):
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, channels, 8, 8), generator=rng, dtype=torch.uint8)
    shape = (n, 8, 8) if masks else (n,)
    targets = torch.randint(0, len(classes), shape, generator=rng)
    return Labelled(pixels, targets.byte() if masks else targets, classes)


def task_of(*, augment=UNCHANGED, **changes):
    parts = {"train": labelled(7), "valid": labelled(3, seed=1), "test": labelled(4, seed=2)}
    return labelled_task("small", {**parts, **changes}, augment=augment, objective=Multiclass())


def test_values_are_those_of_torchvisions_to_tensor_and_normalize():
    source = labelled(5)
    batch = Images(source.pixels, source.targets).take(torch.tensor([4, 0]))
    mean, std = (torch.tensor(x)[:, None, None] for x in IMAGENET)
    torch.testing.assert_close(batch.inputs * std + mean, source.pixels[[4, 0]] / 255)
    assert torch.equal(batch.targets, source.targets[[4, 0]])


def test_grey_images_use_one_mean():
    source = labelled(2, channels=1)
    examples = Images(source.pixels, source.targets, mean=(0.5,), std=(0.25,))
    torch.testing.assert_close(
        examples.take(torch.arange(2)).inputs, (source.pixels / 255 - 0.5) / 0.25
    )


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, 6), min_size=1, max_size=9))
def test_a_batch_has_the_images_of_its_rows_in_order(rows):
    examples = task_of().examples
    whole = examples.take(torch.arange(7))
    batch = examples.take(torch.tensor(rows))
    assert torch.equal(batch.inputs, whole.inputs[rows])
    assert torch.equal(batch.targets, whole.targets[rows])


def test_only_a_generator_augments(rng):
    task = task_of(augment=AUGMENTATIONS["resized_crop"])
    plain = task_of().examples.take(torch.arange(7))
    assert torch.equal(task.examples.take(torch.arange(7)).inputs, plain.inputs)
    augmented = task.examples.take(torch.arange(7), rng=rng)
    assert not torch.equal(augmented.inputs, plain.inputs)
    assert torch.equal(augmented.targets, plain.targets)


def test_masks_are_augmented_with_their_images(rng):
    source = labelled(6, masks=True)
    values = source.targets[:, None].expand(-1, 3, -1, -1).contiguous()  # images show their masks
    examples = Images(
        values, source.targets, mean=(0.0,), std=(1 / 255,), augment=Augmentation(flip=True)
    )
    batch = examples.take(torch.arange(6), rng=rng)
    assert batch.targets.dtype == torch.int64
    torch.testing.assert_close(batch.inputs[:, 0], batch.targets.float(), rtol=0, atol=1e-3)
    assert not torch.equal(batch.targets, source.targets.long())


def test_splits_keep_their_images_and_their_order():
    task = task_of(extra=labelled(2, seed=5))
    assert {split: len(rows) for split, rows in task.splits.items()} == {
        **{"train": 7, "valid": 3, "test": 4},
        "extra": 2,
    }
    for split, seed in {"train": 0, "valid": 1, "test": 2, "extra": 5}.items():
        source = labelled(len(task.splits[split]), seed=seed)
        assert torch.equal(task.examples.pixels[task.splits[split]], source.pixels)
        assert torch.equal(task.examples.targets[task.splits[split]], source.targets)


def test_moving_a_task_moves_images_and_statistics():
    batch = task_of().to("meta").examples.take(torch.arange(3))
    assert batch.inputs.device.type == batch.targets.device.type == "meta"


def test_the_same_content_has_the_same_fingerprint():
    assert task_of().fingerprint == task_of().fingerprint
    assert len(task_of().fingerprint) == 64


def test_any_other_content_has_another_fingerprint():
    one_pixel = labelled(7)
    one_pixel.pixels[0, 0, 0, 0] ^= 1
    one_label = labelled(7)
    one_label.targets[0] = (one_label.targets[0] + 1) % 3
    others = [
        task_of(train=one_pixel),
        task_of(train=one_label),
        task_of(train=labelled(7).take(torch.arange(7).flip(0))),
        task_of(augment=AUGMENTATIONS["turn"]),
        task_of(extra=labelled(1)),
    ]
    assert len({task.fingerprint for task in [task_of(), *others]}) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid": labelled(0)}, "split 'valid' of small should hold images, it is empty"),
        (
            {"test": labelled(4, channels=1)},
            r"one shape \(3, 8, 8\) .* split 'test' have \(1, 8, 8\)",
        ),
        ({"test": labelled(4, classes=("a", "b", "d"))}, "split 'test' differs in: c, d"),
        ({"test": labelled(4, classes=("a", "c", "b"))}, "differs in: their order"),
    ],
)
def test_splits_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        task_of(**changes)
