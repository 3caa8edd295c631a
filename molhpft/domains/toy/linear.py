"""The two-layer linear network of the theory, as a network and a task that `fit` can train.

In float64: what a trained network and a closed form differ by is then the theory's, not rounding's.
"""

import torch
from torch import nn

from molhpft.core.data import Rows, Task
from molhpft.core.network import Chain, Network, Plain
from molhpft.core.objectives import Squared


def linear_task(*, examples: int = 10, inputs: int = 40, seed: int = 0) -> Task:
    """A few random points with random signs: `x ~ N(0, I / d)`, `y = +-1`, half the squared error.

    It has a training split only, and more inputs than examples, so that it can be fitted exactly.
    Its loss is the mean over examples where the theory has the sum: a learning rate here is
    `examples` times that of the theory.

    Args:
        examples: number of points, N.
        inputs: numbers in a point, d.
        seed: of points and signs.

    Raises:
        ValueError: fewer inputs than examples.
    """
    if not 1 <= examples <= inputs:
        raise ValueError(
            f"examples are at least 1 and at most inputs={inputs}, so that any labels can be "
            f"fitted, got {examples}"
        )
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, inputs, generator=rng, dtype=torch.float64) / inputs**0.5
    y = torch.randint(2, (examples, 1), generator=rng).double() * 2 - 1
    return Task(f"linear_{seed}", Rows(x, y), {"train": torch.arange(examples)}, Squared(), 1)


def linear_network(
    *, inputs: int = 40, width: int = 20, head_norm: float = 3.0, rng: torch.Generator
) -> Network:
    """`q = v^T B x` with random `B` (k, d) and `v` (k,), no bias anywhere.

    Args:
        inputs: d.
        width: k, numbers in a feature.
        head_norm: root mean square of ||v||; a large random head is what makes finetuning move
            features the wrong way first.
        rng: draws B with variance 1 / k and v with variance head_norm^2 / k.
    """
    backbone = nn.Linear(inputs, width, bias=False, dtype=torch.float64)
    head = nn.Linear(width, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        backbone.weight.normal_(0, width**-0.5, generator=rng)
        head.weight.normal_(0, head_norm * width**-0.5, generator=rng)
    return Network(
        Chain({"linear0": Plain(backbone, width=width)}),
        Chain({"linear": Plain(head, width=1)}),
    )
