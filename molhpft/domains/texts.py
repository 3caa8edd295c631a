"""Many short texts as two tensors, which a cache can keep."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor


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
