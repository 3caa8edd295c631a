"""Molecules a second in training a D-MPNN: this package against chemprop, from the same weights.

    python benchmarks/dmpnn_speed.py
    python benchmarks/dmpnn_speed.py --molecules 2000 --repeats 3

In an environment that has chemprop 2 beside this package. Depth 3, width 300, norm aggregation and
a linear head on Tox21 (in the folder MOLHPFT_DATA, or fetched), Adam, batches of 64. Both sides
start from the same weights and train an epoch in turn; the medians of their epochs, but for a first
one, are compared. chemprop runs by its own loader and loss over molecules that it has featurised
before, in a plain loop, which is the fastest way to use it. The last line is JSON.
"""

from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

import torch
from chemprop.data import MoleculeDatapoint, MoleculeDataset, build_dataloader
from chemprop.models import MPNN
from chemprop.nn import BinaryClassificationFFN, BondMessagePassing, NormAggregation
from rdkit import Chem, rdBase
from timing import in_turn, print_figures, print_table
from train_speed import some_of

from molhpft.core.evaluate import predict
from molhpft.core.network import Network, linear_head
from molhpft.domains.molecules.chemprop_files import backbone_weights
from molhpft.domains.molecules.dmpnn import dmpnn
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.weights import WeightFile
from molhpft.tuning.callbacks import Callback
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase

DEPTH, WIDTH, SIZE, LR = 3, 300, 64, 1e-4


class Ours(Callback):
    """The package's network, loop and batches."""

    def __init__(self, task, model):
        backbone = dmpnn(depth=DEPTH, width=WIDTH)
        settings = {"message_passing": {"depth": DEPTH}}
        weights = WeightFile(Path("chemprop"), model.state_dict(), {}, settings=settings)
        backbone.load_state_dict(backbone_weights(weights, "message_passing."))
        head = linear_head(WIDTH, task.outputs)
        layer = model.predictor.ffn[0][0]
        head.load_state_dict(
            {f"stages.linear.module.{k}": v for k, v in layer.state_dict().items()}
        )
        self.task, self.network = task, Network(backbone, head)
        self.rng, self.progress, self.losses = torch.Generator().manual_seed(0), None, []

    def train(self):
        """One more epoch of `fit`."""
        phase = Phase(trains="all", epochs=len(self.losses) + 1, lr=LR, batch_size=SIZE)
        rows = fit(self.network, phase, self.task, rng=self.rng, callbacks=[self])
        self.losses = [row["loss"] for row in rows]

    def resume(self):
        """What the last epoch left."""
        return self.progress

    def after_epoch(self, rows, progress):
        """Keep it for the next one."""
        self.progress = progress()

    def logits(self):
        """Of all training molecules, (n, t)."""
        return predict(self.network, self.task, "train", size=SIZE).logits


class Chemprop:
    """Chemprop's own network, loader and loss."""

    def __init__(self, task, model):
        rows = task.rows("train").tolist()
        targets = task.examples.targets.float().numpy()
        points = [MoleculeDatapoint.from_smi(task.examples.smiles[k], targets[k]) for k in rows]
        data = MoleculeDataset(points)
        data.cache = True
        self.model = model
        self.batches = build_dataloader(data, batch_size=SIZE, num_workers=0, seed=0)
        self.in_order = build_dataloader(data, batch_size=SIZE, num_workers=0, shuffle=False)
        self.optimizer, self.losses = torch.optim.Adam(model.parameters(), lr=LR), []

    def train(self):
        """One more epoch."""
        self.model.train()
        total = 0.0
        for batch in self.batches:
            self.optimizer.zero_grad()
            loss = self.model.training_step(batch, 0)
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        self.losses.append(total / len(self.batches))

    @torch.no_grad()
    def logits(self):
        """Of all training molecules, (n, t)."""
        self.model.eval()
        parts = [
            self.model.predictor.train_step(self.model.fingerprint(batch.bmg))
            for batch in self.in_order
        ]
        return torch.cat(parts)


def chemprop_model(outputs):
    """Random weights from a fixed seed; nothing is logged, since no trainer is there to do it."""
    torch.manual_seed(0)
    head = BinaryClassificationFFN(n_tasks=outputs, input_dim=WIDTH, n_layers=0)
    model = MPNN(BondMessagePassing(d_h=WIDTH, depth=DEPTH), NormAggregation(), head)
    model.log = lambda *_, **__: None
    return model


def readable(task):
    """The training split alone, of the molecules that chemprop reads as well."""
    rows = task.rows("train")
    with rdBase.BlockLogs():
        kept = [Chem.MolFromSmiles(task.examples.smiles[k]) is not None for k in rows.tolist()]
    return replace(task, splits={"train": rows[torch.tensor(kept)]})


def main():
    """Print a table and, last, all figures as JSON."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=6264, help="of the training split")
    parser.add_argument("--repeats", type=int, default=5, help="epochs")
    options = parser.parse_args()
    task = readable(some_of(ogb_task("ogbg-moltox21"), options.molecules))
    model = chemprop_model(task.outputs)
    # copied before chemprop trains its own
    sides = {"molhpft": Ours(task, model), "chemprop": Chemprop(task, model)}
    logits = {name: side.logits() for name, side in sides.items()}
    difference = (logits["molhpft"] - logits["chemprop"]).abs().max().item()
    inference = in_turn({name: side.logits for name, side in sides.items()}, options.repeats)
    training = in_turn({name: side.train for name, side in sides.items()}, options.repeats)
    n = len(task.rows("train"))
    figures = {
        name: {"training": n / training[name], "inference": n / inference[name]} for name in sides
    }
    print_table(
        f"ogbg-moltox21, {torch.get_num_threads()} threads",
        {
            name: {
                "training/s": f"{row['training']:,.0f}",
                "inference/s": f"{row['inference']:,.0f}",
                "losses": " ".join(f"{loss:.4f}" for loss in sides[name].losses),
            }
            for name, row in figures.items()
        },
    )
    ratios = {
        "ratio": training["chemprop"] / training["molhpft"],
        "inference_ratio": inference["chemprop"] / inference["molhpft"],
    }
    print_figures({**ratios, "first_difference": difference, **figures})


if __name__ == "__main__":
    main()
