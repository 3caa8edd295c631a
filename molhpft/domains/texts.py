"""Many texts as a person lists them, and as two tensors, which a cache can keep."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor


def listed(items: Iterable[str], *, most: int | None = None) -> str:
    """Items as a person lists them: a, b and c; empty for none.

    Args:
        items: in order.
        most: how many are named; of more the first ones are, and the others are counted.
    """
    shown = list(items)
    if most is not None and len(shown) > most:
        shown = [*shown[:most], f"{len(shown) - most:,} more"]
    *first, last = shown or [""]
    return f"{', '.join(first)} and {last}" if first else last


def joined(texts: Sequence[str]) -> dict[str, Tensor]:
    """All texts in UTF-8, one after another, and the length of each in characters."""
    content = "".join(texts).encode("utf-8", "surrogatepass")
    return {
        "texts": torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy()),
        "lengths": torch.tensor([len(text) for text in texts], dtype=torch.int32),
    }


def separate(tensors: Mapping[str, Tensor]) -> list[str]:
    """What `joined` was given."""
    content = tensors["texts"].numpy().tobytes().decode("utf-8", "surrogatepass")
    ends = accumulate(tensors["lengths"].tolist(), initial=0)
    return [content[begin:end] for begin, end in pairwise(ends)]
