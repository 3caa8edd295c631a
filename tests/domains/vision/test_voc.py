"""PASCAL VOC's real folder layout, around shapes drawn by the package."""

import numpy as np
import pytest
import torch
from PIL import Image

from molhpft.core.objectives import Multiclass
from molhpft.domains.vision.segmentation_tasks import CLASSES, draw_shapes, voc_task


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
    assert (task.name, task.outputs, task.target_names) == ("voc", 21, CLASSES)
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


def test_another_size_scales_both(folder):
    batch = next(voc_task(path=folder, size=20).batches("test", size=2))
    assert batch.inputs.shape == (2, 3, 20, 20)
    assert batch.targets.shape == (2, 20, 20)
    assert set(batch.targets.unique().tolist()) <= {0, 1, 2, 3, 255}


def test_training_sees_mirrored_crops_of_image_and_mask(folder, rng):
    task = voc_task(path=folder, size=40)
    plain = voc_task(path=folder, size=40, augment=False)
    first, second = (next(t.batches("train", size=9, rng=rng)) for t in (task, plain))
    assert not torch.equal(first.inputs.sum(), second.inputs.sum())
    assert first.targets.shape == second.targets.shape
    assert set(first.targets.unique().tolist()) <= {0, 1, 2, 3, 255}


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
    with pytest.raises(ValueError, match=r"2007_000003\.png .* one class id a pixel .* mode RGB"):
        voc_task(path=folder, size=16)


def test_an_id_without_a_class_is_refused(folder):
    path = folder / "SegmentationClass" / "2007_000003.png"
    palette_png(path, np.full((30, 40), 21))
    with pytest.raises(ValueError, match="lie from 0 to 20, or are 255; found 21"):
        voc_task(path=folder, size=16)


def test_there_are_twenty_classes_and_background():
    assert len(set(CLASSES)) == 21
    assert CLASSES[0] == "background"
    assert list(CLASSES[1:]) == sorted(CLASSES[1:])
