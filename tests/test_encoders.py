"""Every encoder that comes with the package is what its card says and fits its kind's defaults."""

import hashlib
from pathlib import Path

import pytest
import torch

from molhpft.advice.inventory import describe_weights
from molhpft.config.registry import ENCODERS
from molhpft.domains.molecules.checkpoints import load_encoder
from molhpft.domains.shipped import SHIPPED, shipped_encoders
from molhpft.domains.weights import read_weights, weight_file

FILES = [weight_file(Path(name)) for name in shipped_encoders()]
MOST = 3_000_000  # bytes: it is installed with every copy of the package

needs_encoder = pytest.mark.skipif(not FILES, reason=f"no encoder is in {SHIPPED} yet")


@needs_encoder
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_encoder_fits_the_defaults_of_its_kind(file):
    about = read_weights(file).about
    chain = ENCODERS[about["encoder"]].build()
    load_encoder(chain, Path(file.stem))
    assert all(value.isfinite().all() for value in chain.state_dict().values())
    assert file.stat().st_size < MOST
    assert not [name for name in read_weights(file).tensors if not name.startswith("backbone.")]
    assert about["encoder"] in describe_weights(Path(file.stem))


@needs_encoder
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_card_names_the_file_by_its_hash(file):
    card = file.with_suffix(".md").read_text()
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    for words in ("## Data", "## Training", "## Probes", "molhpft run configs/"):
        assert words in card


@needs_encoder
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_encoder_is_not_that_of_random_weights(file):
    chain = ENCODERS[read_weights(file).about["encoder"]].build()
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    load_encoder(chain, file)
    changed = [n for n, v in chain.state_dict().items() if not torch.equal(v, before[n])]
    assert set(changed) == set(before)


def test_an_installed_package_has_the_encoders():
    project = (SHIPPED.parents[1] / "pyproject.toml").read_text()
    (data,) = (line for line in project.splitlines() if line.startswith('molhpft = ["py.typed"'))
    assert '"encoders/*.safetensors"' in data
    assert '"encoders/*.md"' in data
