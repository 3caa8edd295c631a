from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.objectives import Multiclass
from molhpft.domains.vision.examples import (
    IMAGENET,
    PRESETS,
    UNCHANGED,
    Augmentation,
    Images,
    Labelled,
    labelled_task,
)


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
    task = task_of(augment=PRESETS["resized_crop"])
    plain = task_of().examples.take(torch.arange(7))
    assert torch.equal(task.examples.take(torch.arange(7)).inputs, plain.inputs)
    augmented = task.examples.take(torch.arange(7), rng=rng)
    assert not torch.equal(augmented.inputs, plain.inputs)
    assert torch.equal(augmented.targets, plain.targets)


def test_every_epoch_sees_other_views_of_the_same_order_of_evaluation(rng):
    task = task_of(augment=PRESETS["flip_crop"])
    epochs = [next(task.batches("train", size=7, rng=rng)).inputs for _ in range(2)]
    assert not torch.equal(*epochs)
    first, second = (next(task.batches("test", size=4)).inputs for _ in range(2))
    assert torch.equal(first, second)


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


def test_a_task_knows_its_classes():
    assert (task_of().outputs, task_of().target_names) == (3, ("a", "b", "c"))


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
        task_of(augment=PRESETS["turn"]),
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


def test_taking_rows_leaves_the_source_alone():
    source = labelled(5)
    part = source.take(torch.tensor([3, 1]))
    part.pixels.zero_()
    assert len(part) == 2
    assert source.pixels[[1, 3]].any()
    assert replace(source, classes=()).targets is source.targets
