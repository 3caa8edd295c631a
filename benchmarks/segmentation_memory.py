"""Peak memory of PASCAL VOC at 256 pixels: reading it, scoring every pixel, a step of training.

    python benchmarks/segmentation_memory.py --out FOLDER
    python benchmarks/segmentation_memory.py --out FOLDER --step 16

Stand-in data of VOC's size are drawn into FOLDER in its layout: 1,464 images for train.txt and
1,449 for val.txt, of 500 x 375 pixels. All of them are scored with a network of one convolution,
since a ResNet-50 takes over an hour for that on a core, and 20 of each split by a ResNet-50 of
output stride 8 with DeepLabV3's head. With --step a training step of so many images follows. Each
line is the peak of the process so far; the last one is JSON.
"""

import resource
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
from PIL import Image
from timing import print_figures
from torch import nn

from molhpft.core.network import Chain, Network, Plain
from molhpft.domains.vision.segmentation import (
    UpsampleToImage,
    aspp_head,
    draw_shapes,
    segmentation_resnet,
    voc_task,
)
from molhpft.run.branch import after_finetuning, before_finetuning, predictions
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase

COUNTS = {"train": 1464, "val": 1449}
SOME = 20  # images of each split that the ResNet-50 scores


def main() -> None:
    """Draw what is missing, then measure."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the stand-in data")
    parser.add_argument("--step", type=int, default=0, help="images of a training step")
    given = parser.parse_args()
    if not (given.out / "ImageSets").exists():
        draw(given.out)
    figures = {"imports": peak("imports")}
    task = voc_task(path=given.out, size=256)
    figures["data"] = peak("data are read")
    start = perf_counter()
    before_finetuning(predictions(small(), task), task)
    figures["scores"] = peak(f"every pixel is scored, {perf_counter() - start:.0f} s")
    some = {split: rows[:SOME] for split, rows in task.splits.items()}
    network = Network(segmentation_resnet(depth=50), aspp_head(2048, 21))
    few = replace(task, splits=some)
    before_finetuning(predictions(network, few), few)
    after_finetuning(network, few, network, few)
    figures["resnet50"] = peak(f"a ResNet-50 scores {SOME} images of each split")
    if given.step:
        one = replace(task, splits={**some, "train": task.rows("train")[: given.step]})
        phase = Phase(trains="all", epochs=1, lr=0.01, batch_size=given.step, optimizer="sgd")
        fit(network, phase, one, rng=torch.Generator().manual_seed(0))
        figures["step"] = peak(f"a training step of {given.step} images")
    print_figures(figures)


def draw(folder: Path) -> None:
    """Shapes in the layout of VOC2012."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    rng = torch.Generator().manual_seed(0)
    for split, count in COUNTS.items():
        names = [f"{split}_{k:06}" for k in range(count)]
        for name in names:
            drawn = draw_shapes(1, size=500, rng=rng)
            pixels = drawn.pixels[0, :, :375].permute(1, 2, 0).contiguous().numpy()
            Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg")
            mask = drawn.targets[0, :375].contiguous().numpy()
            Image.fromarray(mask).save(folder / "SegmentationClass" / f"{name}.png")
        lists = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        lists.write_text("\n".join(names) + "\n")


def small() -> Network:
    """One convolution, and logits at the size of the image as DeepLabV3's."""
    conv = nn.Conv2d(3, 32, 8, stride=8)
    head = Plain(nn.Conv2d(32, 21, 1), width=21)
    backbone = Chain({"conv": Plain(conv, width=32)})
    return Network(backbone, Chain({"classifier": head, "upsample": UpsampleToImage(21)}))


def peak(what: str) -> float:
    """Most memory of this process so far, in GB, which is printed."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{most:5.2f} GB  {what}", flush=True)
    return round(most, 2)


if __name__ == "__main__":
    main()
