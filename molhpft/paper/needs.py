"""What an exhibit reads from disk: whether it is at hand, and if not, what to put where.

Paths in the configs of the paper are relative to one folder, the one that holds the folder of
`MOLHPFT_DATA`: images lie in `vision/` and weights in `weights/` there. OGB's data sets are called
by their names and lie in the folder of `MOLHPFT_DATA` itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from molhpft.config.options import Options
from molhpft.domains.files import data_folder
from molhpft.domains.molecules.ogb import fetched, ogb_address, ogb_folder, ogb_names
from molhpft.domains.shipped import shipped_encoders

_KEYS = ("path", "weights")
_VOC = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012"
_DOMAINNET = "http://ai.bu.edu/M3SDA"

# relative path, or name of OGB's -> what it should hold, and where that is published
PUBLISHED: Mapping[str, str] = {
    "vision/stl10_binary": "train_X.bin, train_y.bin, test_X.bin, test_y.bin, class_names.txt of "
    "https://cs.stanford.edu/~acoates/stl10",
    "vision/cifar-10-binary": "data_batch_1.bin, ..., data_batch_5.bin, test_batch.bin of "
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    "vision/stanford_cars": "cars_train/, cars_test/, devkit/, cars_test_annos_withlabels.mat of "
    "https://www.kaggle.com/datasets/eduardo4jesus/stanford-cars-dataset (a copy: the authors' "
    "page is gone)",
    "vision/cifar-100-binary": "train.bin, test.bin, fine_label_names.txt of "
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    "vision/flowers-102": "jpg/, imagelabels.mat, setid.mat of "
    "https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
    "vision/domainnet/real": f"beside real_train.txt and real_test.txt, {_DOMAINNET}",
    "vision/domainnet/sketch": f"beside sketch_train.txt and sketch_test.txt, {_DOMAINNET}",
    "vision/domainnet/quickdraw": f"beside quickdraw_train.txt and quickdraw_test.txt, "
    f"{_DOMAINNET}",
    "vision/VOCdevkit/VOC2012": f"JPEGImages/, SegmentationClass/, ImageSets/ of {_VOC}",
    "vision/mnist.npz": "x_train, y_train, x_test, y_test of MNIST, as Keras stores them "
    "(https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz)",
    "weights/resnet50-0676ba61.pth": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "weights/moco_v2_800ep_pretrain.pth.tar": "MoCo v2, 800 epochs, of "
    "https://github.com/facebookresearch/moco",
    "weights/simclr_resnet50.pth": "ResNet50 (1x) of https://github.com/google-research/simclr, "
    "TensorFlow's, converted by https://github.com/tonylins/simclr-converter",
    "weights/byol_resnet50.pth": "https://storage.googleapis.com/deepmind-byol/checkpoints/"
    "pretrain_res50x1.pkl, JAX's, converted by https://github.com/ajtejankar/byol-convert",
    "weights/resnet18_cifar10.safetensors": "not published: the model of a run such as "
    "configs/vision/pretrain_cifar10.yaml with encoder={name: cifar_resnet, depth: 18}",
    "weights/molpcba_gcn.safetensors": "the model of configs/pretrain/molpcba_gcn.yaml",
    **{
        f"weights/{name}.pth": "https://github.com/snap-stanford/pretrain-gnns"
        for name in ("gcn_contextpred", "gcn_supervised", "gcn_supervised_contextpred")
    },
    "weights/molclr_gcn.pth": "https://github.com/yuyangw/MolCLR",
    "weights/resnet20_cifar10.th": "resnet20-12fca82f.th of "
    "https://github.com/akamaster/pytorch_resnet_cifar10",
    **{name: f"mapping/, raw/, split/ of {ogb_address(name)}" for name in ogb_names()},
}


def folder() -> Path:
    """Where the paths in the paper's configs begin."""
    return data_folder().parent


def place(name: str) -> Path:
    """Where something that a config names lies or should be put: one of `needed`."""
    return ogb_folder(name) if name in ogb_names() else folder() / name


def needed(raw: Any) -> list[str]:
    """Files and folders that a config names, relative ones, and OGB's data sets, each once."""
    return list(dict.fromkeys(_named(raw)))


def absent(raw: Any) -> list[str]:
    """Those of them that are not there."""
    return [name for name in needed(raw) if not place(name).exists()]


def located(raw: Options) -> Options:
    """The same config with whole paths."""
    whole: Options = _with_whole_paths(raw)
    return whole


def check(raw: Any, name: str, *, has_stand_in: bool) -> None:
    """Refuse to begin where something is not there; fetch OGB's data sets where only they are not.

    Args:
        raw: a config of the paper.
        name: of the exhibit.
        has_stand_in: whether it could be drawn of something else.

    Raises:
        FileNotFoundError: it is not, or cannot be fetched; the message says what to put where.
    """
    names = absent(raw)
    if all(absent_name in ogb_names() for absent_name in names):
        for data_set in names:
            fetched(data_set)
    else:
        hint = f"; or draw it of what is at hand: molhpft paper {name} --stand-in"
        raise FileNotFoundError(f"{name} needs {described(names)}{hint if has_stand_in else ''}")


def described(names: Sequence[str]) -> str:
    """Where each of some files belongs, what it is, and where it is published."""
    places = {name: place(name).relative_to(folder()) for name in names}
    parts = (f"{places[name]} ({PUBLISHED.get(name, 'named by the config')})" for name in names)
    return f"in {folder()}: {'; '.join(parts)}"


def _named(raw: Any) -> Iterator[str]:
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            if _names_files(key):
                values = value if isinstance(value, list) else [value]
                yield from (one for one in values if _is_relative(one))
            else:
                yield from _named(value)
    elif isinstance(raw, list):
        for value in raw:
            yield from _named(value)
    elif isinstance(raw, str) and raw in ogb_names():
        yield raw


def _with_whole_paths(raw: Any, *, of_files: bool = False) -> Any:
    if isinstance(raw, Mapping):
        return {
            key: _with_whole_paths(value, of_files=_names_files(key)) for key, value in raw.items()
        }
    if isinstance(raw, list):
        return [_with_whole_paths(value, of_files=of_files) for value in raw]
    return str(folder() / raw) if of_files and _is_relative(raw) else raw


def _names_files(key: str) -> bool:
    """Whether a key, of a grid perhaps ("task.path"), has paths for its value."""
    return key.rpartition(".")[2] in _KEYS


def _is_relative(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    return value not in shipped_encoders() and not Path(value).is_absolute()
