"""Every encoder that comes with the package is what its card says and is built as its file says."""

import hashlib
from pathlib import Path

import pytest
import torch

from molhpft.advice.inventory import describe_weights
from molhpft.config.registry import ENCODERS
from molhpft.domains.molecules.checkpoints import fitting_encoder, load_encoder
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.molecules.overlap import MoleculeSet, inchikey_blocks
from molhpft.domains.shipped import SHIPPED, shipped_encoders
from molhpft.domains.weights import read_weights, weight_file
from molhpft.estimator import MoleculeEncoder
from tests.marks import slow

FILES = [weight_file(Path(name)) for name in shipped_encoders()]
MOST = 12_000_000  # bytes: it is installed with every copy of the package
SALTS = {("ogbg-molhiv", "valid"): 1, ("ogbg-molhiv", "test"): 1, ("admet", "all"): 38}
"""Molecules that test, and are another salt, protonation or drawing of one that was trained on."""

shipped = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def untrained(file):
    """The encoder that takes a file, with random weights."""
    options = fitting_encoder(read_weights(file))
    return ENCODERS[options.pop("name")].build(**options)


@shipped
def test_a_shipped_encoder_is_small_and_nothing_but_an_encoder(file):
    assert file.stat().st_size < MOST
    assert not [name for name in read_weights(file).tensors if not name.startswith("backbone.")]
    assert read_weights(file).about["encoder"] in describe_weights(Path(file.stem))


@shipped
def test_a_shipped_encoder_fills_all_of_the_chain_that_it_names(file):
    chain = untrained(file)
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    load_encoder(chain, Path(file.stem))
    after = chain.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert {n for n, v in after.items() if not torch.equal(v, before[n])} == set(before)


@shipped
def test_a_shipped_encoder_tells_molecules_apart_and_is_float32_in_memory(file):
    z = MoleculeEncoder(file.stem).fit_transform(["CCO", "CCCO", "c1ccccc1O", "no molecule"])
    assert z.dtype == "float32"
    distances = abs(z[:3, None] - z[None, :3]).max(-1)
    assert (distances[~torch.eye(3, dtype=torch.bool).numpy()] > 1e-3).all()


@shipped
def test_the_card_names_the_file_by_its_hash(file):
    card = file.with_suffix(".md").read_text()
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    titles = ("## Data", "## Licences", "## Training", "## Probes")
    for words in (*titles, "molhpft run configs/"):
        assert words in card


@shipped
def test_the_card_says_the_precision_of_the_file(file):
    kinds = {v.dtype for v in read_weights(file).tensors.values() if v.is_floating_point()}
    half = "stored in float16" in file.with_suffix(".md").read_text()
    assert half == (torch.float16 in kinds)
    assert kinds <= {torch.float16, torch.float32}


def leaks(file):
    """Molecules trained on, by data set and split, as the card has them."""
    rows = [line.split("|") for line in file.with_suffix(".md").read_text().splitlines()]
    return {
        (name.strip(), split.strip()): int(trained.replace(",", ""))
        for _, name, split, _, trained, *_ in (row for row in rows if len(row) == 7)
        if split.strip() in ("valid", "test", "all")
    }


@shipped
def test_the_card_says_that_nothing_tested_on_was_trained_on_but_some_other_salts(file):
    assert {key: n for key, n in leaks(file).items() if n} == SALTS


@pytest.mark.parametrize(
    "name",
    [
        slow("ogbg-moltox21"),
        slow("ogbg-molhiv"),
        "ogbg-molbace",
        "ogbg-molesol",
    ],
)
@shipped
def test_the_molecules_that_come_with_an_encoder_are_as_many_of_a_test_set_as_the_card_says(
    file, name, ogb_root, monkeypatch
):
    monkeypatch.setenv("MOLHPFT_DATA", str(ogb_root))
    known = MoleculeSet.from_bytes(file.with_suffix(".molecules").read_bytes())
    task = ogb_task(name)
    for split in ("valid", "test"):
        smiles = [task.examples.smiles[row] for row in task.rows(split).tolist()]
        assert known.has(inchikey_blocks(smiles)).sum() == leaks(file)[name, split]


def test_an_installed_package_has_the_encoders():
    project = (SHIPPED.parents[1] / "pyproject.toml").read_text()
    (data,) = (line for line in project.splitlines() if line.startswith('molhpft = ["py.typed"'))
    assert '"encoders/*.safetensors"' in data
    assert '"encoders/*.md"' in data
    assert '"encoders/*.molecules"' in data
