"""A ResNet moved to new classes: pretrained on digits 0 to 4, finetuned on a few of 5 to 9.

The digits are those that scikit-learn ships, so nothing is downloaded. Both steps are configs of
the catalog (`image_npz`, `cifar_resnet`), and the second starts from the run folder of the first.

$ python examples/resnet.py
"""

import argparse
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from molhpft.config.schema import parse_config
from molhpft.domains.files import Json
from molhpft.results.terminal import reading
from molhpft.run.run import run

ENCODER = {"name": "cifar_resnet", "depth": 20}
SGD = {"batch_size": 32, "optimizer": "sgd", "schedule": "cosine", "keep": "best"}


def write_digits(path: Path, classes: range) -> Path:
    """Some of the classes as an .npz file of 8-bit images: four fifths to train, one to test."""
    found = load_digits()
    chosen = np.isin(found.target, classes)
    images = (found.images[chosen] * (255 / 16)).astype(np.uint8)
    labels = found.target[chosen] - classes.start
    test = np.arange(len(labels)) % 5 == 0
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        x_train=images[~test],
        y_train=labels[~test],
        x_test=images[test],
        y_test=labels[test],
    )
    return path


def pretrained(out: Path, epochs: int) -> Path:
    """Weights of a ResNet-20 that tells 0 to 4 apart."""
    path = write_digits(out / "digits_0_to_4.npz", range(5))
    config: dict[str, Any] = {
        "task": {"name": "image_npz", "path": path, "size": 16},
        "encoder": ENCODER,
        "method": "scratch",
        "finetune": {**SGD, "epochs": epochs, "lr": 0.05},
    }
    folder = run(parse_config(config), out)
    score = folder.read_json("summary.json")["branches"][0]["final"]["test"]
    print(f"pretraining on digits 0 to 4: test accuracy {score:.1%}")
    return folder.path / "model.safetensors"


def moved(out: Path, weights: Path, method: Any, *, epochs: int, cut: str | None = None) -> Json:
    """A method on 50 images of 5 to 9; `cut` re-initialises the backbone from that stage on."""
    path = write_digits(out / "digits_5_to_9.npz", range(5, 10))
    config: dict[str, Any] = {
        "task": {"name": "image_npz", "path": path, "size": 16, "train": 50, "valid": 200},
        "encoder": {**ENCODER, "weights": weights},
        "method": method,
        "probe": {"lr": 0.003, "batch_size": 32},
        "finetune": {**SGD, "epochs": epochs, "lr": 0.01},
        "cut": cut,
    }
    # one template for every method: from scratch, neither probe nor weights are any use
    return run(parse_config(config, unused_are="dropped"), out).read_json("summary.json")


def against_tau(rows: list[Json]) -> str:
    """A line a tau; scores in percent."""
    lines = [" tau    AIE  HP train  HP valid  FT valid  FT test  distance  cosine"]
    for row in rows:
        hp, ft, shift = row["probe"], row["final"], row["shift"]
        scores = [100 * score for score in (hp["train"], hp["valid"], ft["valid"], ft["test"])]
        form = "{:4}{:7.3f}{:10.2f}{:10.2f}{:10.2f}{:9.2f}{:10.3f}{:8.3f}"
        moved = shift["distance"], shift["cosine"]
        lines.append(form.format(row["tau"], row["energy"]["aie"], *scores, *moved))
    return "\n".join(lines)


def main(out: Path, *, quick: bool) -> None:
    """Scratch beside HP-FT from every tau, then with the last block counted as head."""
    weights = pretrained(out, 1 if quick else 8)
    epochs, taus = (1, [0, 4]) if quick else (10, [0, 4, 16, 64, 256])
    scratch = moved(out, weights, "scratch", epochs=epochs)["branches"][0]["final"]
    print(f"from scratch on 50 images of 5 to 9: test accuracy {scratch['test']:.1%}")
    for cut in (None, "layer3.2"):
        method = {"name": "hp_ft", "tau": taus if cut is None else taus[:3]}
        found = moved(out, weights, method, epochs=epochs, cut=cut)
        print(f"\nHP-FT, {'the whole backbone' if cut is None else f'head from {cut} on'}")
        print(against_tau(found["branches"]))
        print("\n" + fill(reading(found), 88))
    print(f"\nwrote run folders in {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A ResNet moved to new classes.")
    parser.add_argument("--out", type=Path, default=Path("runs/resnet"))
    parser.add_argument("--quick", action="store_true", help="one epoch, two taus")
    given = parser.parse_args()
    main(given.out, quick=given.quick)
