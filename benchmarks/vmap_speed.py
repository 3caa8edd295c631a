"""What stacked probing gains over `torch.func.vmap` and `torch.optim`.

    python benchmarks/vmap_speed.py

Linear heads with 12 labels on 6,264 random rows of 300 features, batches of 128, adam: one head,
and 36 heads of 4 learning rates, 3 smoothings and 3 orders of the rows. Microseconds a step; the
vmapped side is given its batches and smoothed labels for nothing.
"""

import argparse
from dataclasses import replace
from functools import partial
from itertools import product

import torch
from timing import in_turn, print_figures, print_table
from torch import nn
from torch.func import functional_call, vmap

from molhpft.core.data import Rows, Task
from molhpft.core.network import Chain, Network, linear_head
from molhpft.core.objectives import Multilabel
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe_many

N, WIDTH, LABELS, SIZE, EPOCHS = 6264, 300, 12, 128, 3
PHASE = Phase(trains="head", epochs=EPOCHS, lr=1e-3, batch_size=SIZE)
GRID = [
    replace(PHASE, lr=lr, smoothing=smoothing)
    for lr, smoothing in product((3e-4, 1e-3, 3e-3, 1e-2), (0.0, 0.05, 0.1))
]


def stacked(task, phases, orders):
    """Heads trained as the package trains them."""
    heads = [Network(Chain({}), linear_head(WIDTH, LABELS)) for _ in range(orders)]
    rngs = [torch.Generator().manual_seed(seed) for seed in range(orders)]
    probe_many(heads, phases, task, taus=[EPOCHS], rngs=rngs)


def vmapped(z, y, phases, orders):
    """The same number of steps on as many heads, by vmap and a fused optimizer."""
    head = nn.Linear(WIDTH, LABELS)
    count = orders * len(phases)
    heads = [
        {k: v.detach().clone().requires_grad_() for k, v in head.named_parameters()}
        for _ in range(count)
    ]
    groups: dict[float, list] = {}
    for own, phase in zip(heads, phases * orders, strict=True):
        groups.setdefault(phase.lr, []).extend(own.values())
    options = [{"params": parameters, "lr": lr} for lr, parameters in groups.items()]
    optimizer = torch.optim.Adam(options, fused=True)
    forward = vmap(vmap(lambda p, x: functional_call(head, p, (x,)), (0, None)), (0, 0))
    loss = nn.BCEWithLogitsLoss(reduction="none")
    for start in range(0, N * EPOCHS, SIZE):
        rows = torch.arange(start, start + SIZE) % N
        x, target = z[rows].expand(orders, -1, -1), y[rows]
        weights = {
            key: torch.stack([own[key] for own in heads]).unflatten(0, (orders, -1))
            for key in heads[0]
        }
        logits = forward(weights, x)
        optimizer.zero_grad()
        loss(logits, target.expand_as(logits)).mean((2, 3)).sum().backward()
        optimizer.step()


def main():
    """Measure in turn, print a table, and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="medians are over these")
    options = parser.parse_args()
    torch.manual_seed(0)
    z, y = torch.randn(N, WIDTH), (torch.rand(N, LABELS) < 0.1).float()
    task = Task("random", Rows(z, y), {"train": torch.arange(N)}, Multilabel(), LABELS)
    works = {
        "1 head, stacked": partial(stacked, task, [PHASE], 1),
        "1 head, vmap": partial(vmapped, z, y, [PHASE], 1),
        "36 heads, stacked": partial(stacked, task, GRID, 3),
        "36 heads, vmap": partial(vmapped, z, y, GRID, 3),
    }
    steps = EPOCHS * -(-N // SIZE)
    times = {k: 1e6 * seconds / steps for k, seconds in in_turn(works, options.rounds).items()}
    print_table(
        "a step of probing", {name: {"us": f"{value:,.0f}"} for name, value in times.items()}
    )
    one, many = (times[f"{n}, vmap"] / times[f"{n}, stacked"] for n in ("1 head", "36 heads"))
    print_figures({"one_ratio": one, "many_ratio": many})


if __name__ == "__main__":
    main()
