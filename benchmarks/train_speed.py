"""Molecules a second in training and inference: this package against plain PyTorch Geometric.

    python benchmarks/train_speed.py
    python benchmarks/train_speed.py --molecules 2000 --repeats 3 --dropout 0

OGB's GCN of 5 layers and width 300 on Tox21 and HIV (in the folder MOLHPFT_DATA, or fetched) in
batches of 128, on as many threads as PyTorch takes or, with `--device cuda`, on a GPU. All sides
start from the same weights, see the same molecules and train an epoch in turn, so that what else
the machine does hits all of them; the medians of their epochs, but for a first one, are compared.
The floor is the time of the matrix products alone, in the same shapes and precision and by the same
library. The last line is JSON.
"""

import logging
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

import torch
from peers import GCN, graphs_of, logits_of, train_epoch
from timing import in_turn, print_figures, print_table

from molhpft.core.determinism import deterministic_on_gpus
from molhpft.core.evaluate import predict
from molhpft.core.network import Network, linear_head
from molhpft.domains.molecules.checkpoints import encoder_weights
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.ogb import ogb_folder, ogb_task
from molhpft.domains.weights import WeightFile
from molhpft.kernels.ops import inner_product, product
from molhpft.run.device import multiplies_bfloat16
from molhpft.tuning.callbacks import Callback
from molhpft.tuning.distributed import Machine
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase

DATA = ("ogbg-moltox21", "ogbg-molhiv")
LAYERS, WIDTH, SIZE = 5, 300, 128
PHASE = Phase(trains="all", epochs=0, lr=1e-3, batch_size=SIZE)


class Ours(Callback):
    """The package's network, loop and batches, in one precision."""

    def __init__(self, precision, task, peer, *, dropout, device, seed):
        self.name, self.task = precision, task.to(device)
        self.machine = Machine(device=torch.device(device), mixed=precision == "bf16-mixed")
        self.network = Network(
            ogb_gcn(layers=LAYERS, width=WIDTH, dropout=dropout), linear_head(WIDTH, task.outputs)
        )
        weights = WeightFile(Path("peer"), peer.state_dict(), {})
        backbone = self.network.backbone.state_dict()
        for key, value in encoder_weights(weights).items():
            backbone[key].copy_(value.view_as(backbone[key]))
        head = {
            f"stages.linear.module.{k}": v for k, v in peer.graph_pred_linear.state_dict().items()
        }
        self.network.head.load_state_dict(head)
        self.network.to(device)
        self.rng, self.progress, self.losses = torch.Generator().manual_seed(seed), None, []

    @deterministic_on_gpus()
    def train(self):
        """One more epoch of `fit`, on a GPU in a fixed order as in a run."""
        phase = replace(PHASE, epochs=len(self.losses) + 1)
        rows = fit(
            self.network,
            phase,
            self.task,
            rng=self.rng,
            callbacks=[self],
            machine=self.machine,
        )
        self.losses = [row["loss"] for row in rows]

    def resume(self):
        """What the last epoch left."""
        return self.progress

    def after_epoch(self, rows, progress):
        """Keep it for the next one."""
        self.progress = progress()

    def logits(self, split="train"):
        """Of a whole split, (n, t)."""
        with self.machine.autocast():
            return predict(self.network, self.task, split, size=SIZE).logits.float()


class Peer:
    """Plain PyG, float32."""

    def __init__(self, task, gcn, device):
        self.name, self.gcn, self.losses, self.device = "PyG", gcn.to(device), [], device
        self.graphs = {split: graphs_of(task, split) for split in ("train", "test")}
        self.optimizer = torch.optim.Adam(gcn.parameters(), lr=PHASE.lr)

    def train(self):
        """One more epoch."""
        graphs, device = self.graphs["train"], self.device
        loss = train_epoch(self.gcn, graphs, self.optimizer, size=SIZE, device=device)
        self.losses.append(loss)

    def resume(self):
        """What the last epoch left."""
        return self.progress

    def after_epoch(self, rows, progress):
        """Keep it for the next one."""
        self.progress = progress()

    def logits(self, split="train"):
        """Of a whole split, (n, t)."""
        return logits_of(self.gcn, self.graphs[split], size=SIZE, device=self.device)


class Floor:
    """Matrix products of an epoch and no more, forward and backward."""

    def __init__(self, task, dtype, device):
        lengths = [len(batch.inputs.atoms) for batch in task.batches("train", size=SIZE)]
        self.lengths = lengths
        h = torch.randn(max(lengths), WIDTH, device=device).to(dtype)
        self.h, self.g = h, torch.randn_like(h)
        self.weight, self.bias = h.new_ones(WIDTH, WIDTH), h.new_ones(WIDTH)

    def train(self):
        """Three products a layer and a batch."""
        for n in self.lengths:
            h, g = self.h[:n], self.g[:n]
            for _ in range(LAYERS):
                product(h, self.weight, self.bias)
                product(g, self.weight.T)
                inner_product(g, h)
        finish(self.h)


def finish(tensor):
    """Wait until a GPU has done what it was given."""
    if tensor.is_cuda:
        torch.cuda.synchronize()


def some_of(task, molecules):
    """The task with that many of its training molecules, drawn at random."""
    rows = task.rows("train")
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:molecules]
    return replace(task, splits={**task.splits, "train": rows[chosen.sort().values]})


def measured(task, repeats, *, dropout, device, seed):
    """All figures of a data set, by side."""
    torch.manual_seed(seed)
    gcn = GCN(task.outputs, layers=LAYERS, width=WIDTH, dropout=dropout)
    fast = {"bf16-mixed": torch.bfloat16} if multiplies_bfloat16(device) else {}
    precisions = {**fast, "32-true": torch.float32}
    same = {"dropout": dropout, "device": device, "seed": seed}
    sides = [Ours(precision, task, gcn, **same) for precision in precisions]
    sides.append(Peer(task, gcn, device))
    floors = {f"products {name}": Floor(task, dtype, device) for name, dtype in precisions.items()}
    first = {side.name: side.logits() for side in sides}
    differences = {name: (z - first["PyG"]).abs().max().item() for name, z in first.items()}
    inference = in_turn({side.name: side.logits for side in sides}, repeats)
    works = {side.name: side.train for side in sides} | {k: f.train for k, f in floors.items()}
    training = in_turn(works, repeats)
    n, test = len(task.rows("train")), task.examples.targets[task.rows("test")]
    return {
        side.name: {
            "training": n / training[side.name],
            "inference": n / inference[side.name],
            "training_ratio": training["PyG"] / training[side.name],
            "inference_ratio": inference["PyG"] / inference[side.name],
            "floor_ratio": training[side.name]
            / training[f"products {side.name if side.name in precisions else '32-true'}"],
            "losses": side.losses,
            "rocauc": task.objective.score(side.logits("test"), test),
            "first_difference": differences[side.name],
        }
        for side in sides
    }


def where(device):
    """The hardware, in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads"


def cells(row):
    """A side's figures as the table has them."""
    return {
        "training/s": f"{row['training']:,.0f}",
        "x PyG": f"{row['training_ratio']:.2f}",
        "inference/s": f"{row['inference']:,.0f}",
        "x PyG, inference": f"{row['inference_ratio']:.2f}",
        "x products": f"{row['floor_ratio']:.2f}",
        "losses": " ".join(f"{loss:.4f}" for loss in row["losses"]),
        "test AUC": f"{row['rocauc']:.3f}",
    }


def main():
    """Print a table a data set and, last, all figures as JSON."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=6264, help="of each training split")
    parser.add_argument("--repeats", type=int, default=5, help="epochs")
    parser.add_argument("--seed", type=int, default=0, help="of weights, orders and dropout")
    parser.add_argument("--dropout", type=float, default=0.5, help="after each convolution")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--data", nargs="+", default=DATA, help="names of OGB's data sets")
    options = parser.parse_args()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    figures = {}
    for name in options.data:
        if not ogb_folder(name).is_dir():
            print(f"{name} is left out: {ogb_folder(name)} is absent; set MOLHPFT_DATA")
            continue
        task = some_of(ogb_task(name), options.molecules)
        figures[name] = measured(
            task,
            options.repeats,
            dropout=options.dropout,
            device=options.device,
            seed=options.seed,
        )
        rows = {
            side if side == "PyG" else f"molhpft {side}": cells(row)
            for side, row in figures[name].items()
        }
        print_table(f"{name}, {where(options.device)}", rows)
    # the first side is the default precision
    ratios = [next(iter(sides.values()))["training_ratio"] for sides in figures.values()]
    print_figures({"ratio": min(ratios, default=None), **figures})


if __name__ == "__main__":
    main()
