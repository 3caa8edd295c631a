"""Which images train, validate and test, with equal class shares in each."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from molhpft.domains.vision.examples import Labelled, Source


def choose(
    sources: Mapping[str, Source],
    sizes: Mapping[str, int | None],
    *,
    place: Path,
    rng: torch.Generator,
) -> dict[str, Labelled]:
    """Read the images of the splits train, valid and test, as many as are asked for.

    Where the source has no validation images they are taken from its training images; where it has
    train and valid only, its "valid" is kept for testing; where nothing is split, test images are
    taken as well. Whatever is taken has the class shares of what it is taken from.

    Args:
        sources: split name to images, "all" where nothing is split.
        sizes: images of each split; None for those published, a tenth of those it is taken from,
            or (train) all that are left.
        place: where the images lie, for messages.
        rng: draws the images.

    Raises:
        ValueError: there are no training images, fewer images than asked for, or one that cannot
            be read.
    """
    base = sources.get("train", sources.get("all"))
    if base is None:
        raise ValueError(f"{place} should have training images; it has: {', '.join(sources)}")
    published = {
        "valid": sources.get("valid") if "test" in sources else None,
        "test": sources.get("test", sources.get("valid")),
    }
    left, chosen = stratified_order(base.targets, rng=rng), {}
    tenth = max(1, len(left) // 10)
    for split, source in published.items():
        if source is None:
            count = tenth if sizes[split] is None else sizes[split]
            pool, rows = base, _beginning(left, count, split, place)
            left = left[len(rows) :]
        else:
            order = stratified_order(source.targets, rng=rng)
            pool, rows = source, _beginning(order, sizes[split], split, place)
        chosen[split] = pool.take(rows.sort().values)
    rows = _beginning(left, sizes["train"], "train", place)
    return {"train": base.take(rows.sort().values), **chosen}


def stratified_order(targets: Tensor, *, rng: torch.Generator) -> Tensor:
    """Row numbers in a random order, (n,), whose every beginning has the class shares of the whole.

    Args:
        targets: class ids (n,).
        rng: draws the order.
    """
    shuffled = torch.randperm(len(targets), generator=rng)
    by_class = shuffled[targets[shuffled].argsort(stable=True)]
    counts = torch.bincount(targets)
    rank = torch.arange(len(targets)) - (counts.cumsum(0) - counts)[targets[by_class]]
    # row k of a class of c falls at a random place of its k-th c-th of the order
    place = (rank + torch.rand(len(targets), generator=rng)) / counts[targets[by_class]]
    return by_class[place.argsort()]


def _beginning(order: Tensor, count: int | None, split: str, place: Path) -> Tensor:
    if count is not None and not 0 < count <= len(order):
        raise ValueError(
            f"{split} is a number of images from 1 to the {len(order):,} that {place} has left for "
            f"it, got {count}"
        )
    return order[:count]
