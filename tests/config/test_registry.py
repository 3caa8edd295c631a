"""The catalog: every entry can be named, and every option of one changes what is built."""

import math
from itertools import product
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from molhpft.config.options import checked, keywords
from molhpft.config.registry import SECTIONS
from molhpft.config.schema import parse_config
from molhpft.core.annotations import contains, range_of

NEEDED = {"path": "x.csv", "of": "x.smi", "tau": [0, 3], "pretraining": "nci_descriptors"}
NEEDED["stages"] = ["conv0"]
ENTRIES = [(section, name) for section, entries in SECTIONS.items() for name in entries]


def chosen(section, name, **options):
    parameters = keywords(SECTIONS[section][name])
    needed = {k: NEEDED[k] for k, p in parameters.items() if p.default is p.empty}
    base = {"task": "nci_alerts", "encoder": {"name": "gcn", "layers": 1, "width": 4}}
    return parse_config({**base, section: {"name": name, **needed, **options}})


def test_every_entry_can_be_named_with_what_it_needs():
    for section, name in ENTRIES:
        assert getattr(chosen(section, name), section).name == name


def numeric(annotation):
    parts = get_args(annotation)
    return annotation in (int, float) or any(numeric(part) for part in parts)


NUMBERS = [
    (section, name, key)
    for section, name in ENTRIES
    for key, parameter in keywords(SECTIONS[section][name]).items()
    if numeric(parameter.annotation)
]


@settings(max_examples=100, deadline=None)
@example(which=("method", "uniform_soup", "repeats"), value=10**9)
@example(which=("method", "greedy_soup", "repeats"), value=10**9)
@given(
    which=st.sampled_from(NUMBERS),
    value=st.one_of(
        st.integers(-(10**9), 10**9),
        st.floats(-1e12, 1e12),
        st.sampled_from([math.nan, math.inf, -math.inf]),
    ),
)
def test_a_number_of_any_entry_is_in_its_range_or_refused_with_key_and_range(which, value):
    section, name, key = which
    interval = range_of(keywords(SECTIONS[section][name])[key].annotation)
    assert interval is not None
    try:
        config, refused = chosen(section, name, **{key: value}), ""
    except ValueError as error:
        config, refused = None, str(error)
    if config:
        parsed = getattr(config, section).options[key]
        numbers = parsed if isinstance(parsed, tuple) else [parsed]
        assert all(contains(interval, number) for number in numbers)
    else:
        assert f"{section}.{key} " in refused
        assert "\n" not in refused
        # in range it was at most of the wrong kind, such as half a layer
        assert not contains(interval, value) or value != int(value)


OPTIONS = {
    "layers": (2, 3),
    "width": (4, 8),
    "dropout": (0.1, 0.2),
    "virtual_node": (False, True),
    "model": ("gin", "gcn"),
    "jump": (None, "cat"),
    "norm": ("batch", "layer"),
    "residual": (False, True),
    "jumping_knowledge": (False, True),
    "pool": {"pyg_gnn": ("mean", "max"), "gcn": ("mean", "sum"), "gine": ("mean", "sum")},
    "projection": (4, 5),
    "inputs": (4, 5),
    "depth": {
        "dmpnn": (2, 3),
        "cifar_resnet": (20, 32),
        "resnet": (18, 34),
        "segmentation_resnet": (18, 34),
    },
    "aggregation": ("norm", "mean"),
    "norm_constant": (None, 50.0),
    "bias": (False, True),
    "batch_norm": (False, True),
    "channels": (1, 3),
    "output_stride": (8, 16),
    "hidden": (4, 8),
    "scale": (1.0, 2.0),
    "rates": ((1, 2), (1, 3)),
}


def architecture(chain):
    """Every module with its plain settings, and every weight with its shape."""
    plain = (int, float, str, tuple)
    modules = [
        (name, type(m).__name__, {k: v for k, v in vars(m).items() if isinstance(v, plain)})
        for name, m in chain.named_modules()
    ]
    weights = {
        k: (tuple(v.shape), v.item() if v.ndim == 0 else 0) for k, v in chain.state_dict().items()
    }
    return modules, weights


@pytest.mark.parametrize(
    ("section", "name"), [(s, name) for s in ("encoder", "head") for name in SECTIONS[s]]
)
def test_every_option_of_a_network_changes_the_network(section, name):
    entry, options = SECTIONS[section][name], keywords(SECTIONS[section][name])
    values = {k: OPTIONS[k][name] if isinstance(OPTIONS[k], dict) else OPTIONS[k] for k in options}
    base = {key: pair[0] for key, pair in values.items()}
    sizes = (6, 3) if section == "head" else ()
    first = architecture(entry(*sizes, **base))
    for key, (_, other) in values.items():
        assert architecture(entry(*sizes, **{**base, key: other})) != first, key


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A table, and images in the two layouts, small."""
    folder = tmp_path_factory.mktemp("tasks")
    folds = ["train", "valid", "test"] * 7
    rows = [f"{'C' * n}O,0,{n},train" for n in range(3, 23)]
    rows += [f"C1{'C' * n}1N,1,{n},{fold}" for n, fold in enumerate(folds, start=3)]
    (folder / "rings.csv").write_text("\n".join(["smiles,ring,size,fold", *rows]) + "\n")
    rng = np.random.default_rng(0)
    arrays = {
        f"{what}_{split}": array
        for split, n in (("train", 60), ("test", 30))
        for what, array in (
            ("x", rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)),
            ("y", np.arange(n) % 3),
        )
    }
    np.savez(folder / "images.npz", **arrays)
    for split, kind, k in product(("train", "valid", "test"), "ab", range(3)):
        image = folder / "images" / split / kind / f"{k}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 * k, dtype=np.uint8)).save(image)
    return folder


def task_of(name, files, options):
    given = {k: str(files / v) if k == "path" else v for k, v in options.items()}
    return SECTIONS["task"][name](**checked("task", keywords(SECTIONS["task"][name]), given))


def built(task):
    splits = {name: rows.tolist() for name, rows in task.splits.items()}
    return task.fingerprint, task.objective, task.target_names, splits


@pytest.mark.parametrize(
    ("name", "base", "values"),
    [
        ("shapes", {"images": 12, "size": 16}, {"images": 16, "size": 17, "seed": 1}),
        (
            "toy",
            {"per_class": 4},
            {"classes": [0, 1], "per_class": 5, "degrees": 10.0, "crop": 25, "seed": 1},
        ),
        (
            "csv",
            {"path": "rings.csv", "target_columns": ["ring"], "split": "random"},
            {
                "target_columns": ["size"],
                "kind": "regression",
                "split": "scaffold",
                "split_column": "fold",
                "split_seed": 1,
            },
        ),
        (
            "csv",
            {"path": "rings.csv", "target_columns": ["ring"], "split": "column"}
            | {"split_column": "fold"},
            {"split_seed": 1, "split_column": None},
        ),
        (
            "image_npz",
            {"path": "images.npz", "size": 8},
            {
                **{"size": 9, "train": 20, "valid": 5, "test": 10, "augment": "flip_crop"},
                **{"corruptions": ["noise"], "severity": 2, "normalise": "none", "seed": 1},
            },
        ),
        ("image_npz", {"path": "images.npz", "size": 8, "corruptions": ["noise"]}, {"severity": 2}),
    ],
)
def test_every_option_of_a_task_changes_the_task_or_is_refused(files, name, base, values):
    def task_of(options):
        given = {k: str(files / v) if k == "path" else v for k, v in options.items()}
        return SECTIONS["task"][name](**checked("task", keywords(SECTIONS["task"][name]), given))

    first = built(task_of(base))
    for key, value in values.items():
        try:
            other = built(task_of({**base, key: value}))
        except ValueError as error:
            other = str(error)
        assert other != first, key
        if isinstance(other, str):
            assert key in other


def test_a_seed_for_images_that_nobody_draws_is_refused(files):
    options = {"path": "images", "size": 8, "seed": 3}
    words = r"seed would do nothing: .* has its own splits, used whole"
    with pytest.raises(ValueError, match=words):
        task_of("image_folder", files, options)
    assert task_of("image_folder", files, {**options, "train": 4}).fingerprint
