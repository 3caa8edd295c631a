"""Task heads: what stands between the features and the logits."""

from torch import nn

from molhpft.core.network import Chain, Plain


def linear_head(width: int, outputs: int) -> Chain:
    """One linear map from features of `width` to logits, PyTorch's default initialisation."""
    return Chain({"linear": Plain(nn.Linear(width, outputs), width=outputs)})


def mlp_head(width: int, outputs: int, *, hidden: int = 256) -> Chain:
    """Two linear maps with a ReLU between; 256 hidden units in Ren et al. (2023).

    Fits the new task better than a linear head, so less energy is left after probing.
    """
    return Chain(
        {
            "hidden": Plain(nn.Sequential(nn.Linear(width, hidden), nn.ReLU()), width=hidden),
            "linear": Plain(nn.Linear(hidden, outputs), width=outputs),
        }
    )
