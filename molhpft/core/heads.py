"""Task heads: what stands between the features and the logits."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.core.network import Chain, Plain
from molhpft.core.ranges import Count, Positive


def linear_head(width: int, outputs: int) -> Chain:
    """One linear map from features of `width` to logits, PyTorch's default initialisation."""
    return Chain({"linear": Plain(nn.Linear(width, outputs), width=outputs)})


def mlp_head(width: int, outputs: int, *, hidden: Count = 256) -> Chain:
    """Two linear maps with a ReLU between; 256 hidden units in Ren et al. (2023).

    Fits the new task better than a linear head, so less energy is left after probing.
    """
    return Chain(
        {
            "hidden": Plain(nn.Sequential(nn.Linear(width, hidden), nn.ReLU()), width=hidden),
            "linear": Plain(nn.Linear(hidden, outputs), width=outputs),
        }
    )


def cosine_head(width: int, outputs: int, *, scale: Positive = 10.0) -> Chain:
    """Cosine between features and one learned vector a class, times a learned scale.

    The head that class contrast wants: features and classes meet on the unit sphere, as images and
    texts do in CLIP.

    Args:
        width: of the features.
        outputs: number of classes.
        scale: where the learned scale starts; the inverse of a temperature.
    """
    return Chain({"cosine": Plain(Cosine(width, outputs, scale), width=outputs)})


class Cosine(nn.Module):
    """Scaled cosine similarity to each row of a learned matrix (outputs, width)."""

    def __init__(self, width: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, width) / width**0.5)
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def forward(self, z: Tensor) -> Tensor:
        """Logits (n, outputs) of features (n, width)."""
        cosine = F.normalize(z, dim=1) @ F.normalize(self.weight, dim=1).T
        return cosine * self.log_scale.exp()
