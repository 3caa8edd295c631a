"""How long a 200-epoch probe of Tox21 takes: features once, against a forward pass every epoch.

    python benchmarks/probe_speed.py

Both ways train a linear head on the same frozen 5 x 300 GCN (OGB's) with batches of 128 of the
training molecules of `configs/finetune/tox21_hpft.yaml`, which are featurised before the clock
starts. Ours takes the features and keeps the heads of 12 tau. The other way is plain PyTorch
Geometric: its DataLoader, a forward pass of the backbone in eval mode without gradients, a step of
the head. An epoch of it costs what every other costs, so one a round is timed and multiplied.

Then 4 learning rates x 3 smoothings x 3 seeds, together and one by one.
"""

import argparse
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from peers import GCN, graphs_of, probe_epoch
from timing import in_turn, print_figures, print_table

from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.schema import load_config
from molhpft.core.network import Network, linear_head
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.probe import probe, probe_many

CONFIG = Path(__file__).parent.parent / "configs/finetune/tox21_hpft.yaml"
ENCODER = "encoder={name: gcn, layers: 5, width: 300}"
TAUS = (0, 1, 2, 4, 8, 16, 32, 50, 75, 100, 150, 200)
LRS, SMOOTHINGS, SEEDS = (3e-4, 1e-3, 3e-3, 1e-2), (0.0, 0.05, 0.1), range(3)


def ours(network, phase, task):
    """Features, and the heads of all tau."""
    head, features = on_features(network, task)
    trajectory = probe(head, phase, features, taus=TAUS, rng=torch.Generator().manual_seed(0))
    assert len(trajectory.heads) == len(TAUS)


def together(task, phase, heads, epochs):
    """Heads of every learning rate, smoothing and seed in one training."""
    rngs = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    probe_many(heads, phases_of(phase), task, taus=[epochs], rngs=rngs)


def one_by_one(task, phase, heads, epochs):
    """The same heads, each by itself."""
    for one, (seed, head) in product(phases_of(phase), enumerate(heads)):
        rng = torch.Generator().manual_seed(seed)
        probe_many([head], [one], task, taus=[epochs], rngs=[rng])


def phases_of(phase):
    """A phase for each learning rate and smoothing."""
    return [replace(phase, lr=lr, smoothing=s) for lr, s in product(LRS, SMOOTHINGS)]


def main():
    """Measure in turn, print a table, and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="medians are over these")
    parser.add_argument("--many-epochs", type=int, default=5, help="of each of the 36 heads")
    options = parser.parse_args()
    config = load_config(CONFIG, [ENCODER])
    recipe = build_recipes(config)[0]
    task = build_task(config, recipe)
    network, phase = build_network(config, task, recipe), recipe.probe
    features = on_features(network, task)
    gcn, graphs = GCN(task.outputs), graphs_of(task, "train")
    optimizer = torch.optim.Adam(gcn.graph_pred_linear.parameters(), lr=phase.lr)
    heads = [Network(features[0].backbone, linear_head(300, task.outputs)) for _ in SEEDS]
    grid = (features[1], phase, heads, options.many_epochs)
    works = {
        "features": partial(on_features, network, task),
        "ours": partial(ours, network, phase, task),
        "peer": partial(probe_epoch, gcn, graphs, optimizer, size=phase.batch_size),
        "together": partial(together, *grid),
        "one by one": partial(one_by_one, *grid),
    }
    seconds, epochs = in_turn(works, options.rounds), max(TAUS)
    lines = {
        f"ours, {epochs} epochs, {len(TAUS)} tau, features included": seconds["ours"],
        "  of which features of every split": seconds["features"],
        "PyG, one epoch (measured)": seconds["peer"],
        f"PyG, {epochs} epochs ({epochs} times that)": epochs * seconds["peer"],
        f"36 heads together, {options.many_epochs} epochs": seconds["together"],
        f"36 heads one by one, {options.many_epochs} epochs": seconds["one by one"],
    }
    where = f"{len(task.rows('train'))} training molecules, {torch.get_num_threads()} threads"
    print_table(f"Tox21, {where}", {name: {"s": f"{value:,.3f}"} for name, value in lines.items()})
    figures = {"seconds": seconds["ours"], "features": seconds["features"]}
    figures |= {
        "peer": epochs * seconds["peer"],
        "ratio": epochs * seconds["peer"] / seconds["ours"],
    }
    print_figures(figures | {"many_ratio": seconds["one by one"] / seconds["together"]})


if __name__ == "__main__":
    main()
