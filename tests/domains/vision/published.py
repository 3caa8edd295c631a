"""Tiny data sets written byte for byte in the layouts of the real ones."""

import gzip
import struct

import numpy as np
from PIL import Image
from scipy.io import savemat


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_jpeg(path, red, size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 0, 0)).save(path, quality=100)


def write_mnist(folder, *, gzipped=True, train=6, test=3):
    folder.mkdir(exist_ok=True)
    for name, n in {"train": train, "t10k": test}.items():
        files = {
            "images-idx3": struct.pack(">4BIII", 0, 0, 8, 3, n, 28, 28)
            + pixels(n, 28, 28, seed=n).tobytes(),
            "labels-idx1": struct.pack(">4BI", 0, 0, 8, 1, n) + bytes(k % 10 for k in range(n)),
        }
        for kind, data in files.items():
            path = folder / f"{name}-{kind}-ubyte{'.gz' if gzipped else ''}"
            path.write_bytes(gzip.compress(data) if gzipped else data)
    return folder


def write_cifar10(folder, *, per_batch=4):
    folder.mkdir(exist_ok=True)
    names = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]
    for number, name in enumerate(names):
        records = (
            bytes([(number * per_batch + k) % 10])
            + pixels(3, 32, 32, seed=10 * number + k).tobytes()
            for k in range(per_batch)
        )
        (folder / name).write_bytes(b"".join(records))
    return folder


def write_cifar100(folder):
    folder.mkdir(exist_ok=True)
    for split, fine in {"train": [99, 0, 50], "test": [7]}.items():
        records = (bytes([y // 5, y]) + pixels(3, 32, 32, seed=y).tobytes() for y in fine)
        (folder / f"{split}.bin").write_bytes(b"".join(records))
    (folder / "fine_label_names.txt").write_text("\n".join(f"fine{k}" for k in range(100)) + "\n\n")
    return folder


def write_stl10(folder):
    folder.mkdir(exist_ok=True)
    for split, labels in {"train": [1, 10, 3], "test": [2, 2]}.items():
        upright = pixels(len(labels), 3, 96, 96, seed=len(labels))
        (folder / f"{split}_X.bin").write_bytes(upright.transpose(0, 1, 3, 2).tobytes())
        (folder / f"{split}_y.bin").write_bytes(bytes(labels))
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    return folder


def write_flowers102(folder):
    labels = [102, 1, 1, 7, 7, 102]
    for number in range(1, 7):
        write_jpeg(folder / "jpg" / f"image_{number:05}.jpg", red=10 * number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    splits = {"trnid": [[1, 3, 4]], "valid": [[6]], "tstid": [[2, 5]]}
    savemat(folder / "setid.mat", {key: np.array(rows) for key, rows in splits.items()})
    return folder


def write_stanford_cars(folder):
    splits = {
        "train": ("devkit/cars_train_annos.mat", [2, 1, 3]),
        "test": ("cars_test_annos_withlabels.mat", [3]),
    }
    (folder / "devkit").mkdir(parents=True)
    for split, (file, labels) in splits.items():
        rows = []
        for number, label in enumerate(labels, start=1):
            write_jpeg(folder / f"cars_{split}" / f"{number:05}.jpg", red=50 * label)
            rows.append((1, 2, 3, 4, label, f"{number:05}.jpg"))
        names = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
        annotations = np.array([rows], dtype=[(name, object) for name in names])
        savemat(folder / file, {"annotations": annotations})
    models = np.array([["AM General Hummer SUV 2000", "Acura RL", "Audi R8"]], dtype=object)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": models})
    return folder


def write_domainnet(folder):
    for domain, red in {"real": 100, "sketch": 200}.items():
        for split, files in {"train": [0, 0, 1, 1], "test": [1]}.items():
            lines = []
            for number, label in enumerate(files):
                kind = ("aircraft carrier", "zebra")[label]
                name = f"{domain}/{kind}/{domain}_{label:03}_{split}{number}.jpg"
                write_jpeg(folder / name, red=red + label)
                lines.append(f"{name} {label}\n")
            (folder / f"{domain}_{split}.txt").write_text("".join(lines))
    return folder / "real"
