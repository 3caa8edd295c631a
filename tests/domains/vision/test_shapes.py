import torch

from molhpft.core.objectives import Multiclass
from molhpft.domains.vision.segmentation_tasks import SHAPES, draw_shapes, shapes_task


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
    shares = torch.bincount(masks.flatten(), minlength=256) / masks.numel()
    assert shares[0] > 0.5
    assert (shares[1 : len(SHAPES)] > 0.02).all()
    assert 0.02 < shares[255] < 0.15
    assert shares[len(SHAPES) : 255].sum() == 0


def test_every_border_between_classes_is_unlabelled():
    """Only where the second shape lies inside the first's colour could classes touch: never."""
    masks = drawn(50).targets.long()
    right = (masks[:, :, 1:] != masks[:, :, :-1]) & (masks[:, :, 1:] != 255)
    touching = right & (masks[:, :, :-1] != 255)
    assert touching.sum() < 0.002 * masks.numel()


def test_areas_are_those_of_the_shapes():
    """A square of half side r has 4 r^2, a disc pi r^2, an upright triangle less than either."""
    masks = drawn(400).targets
    area = {k: (masks == k).sum().item() for k in (1, 2, 3)}
    assert area[2] > area[1] > area[3] > 0.3 * area[2]


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
