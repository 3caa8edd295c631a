import pytest

from molhpft.estimator import HPFTClassifier, HPFTRegressor
from molhpft.estimator.notes import Note
from molhpft.estimator.settings import Inference, model_config
from molhpft.estimator.train import train
from tests.estimator.builders import BRIEF, RING, SEVERAL, SIZE, SMILES, size_task


@pytest.fixture(scope="session")
def classifier():
    return HPFTClassifier(**BRIEF).fit(SMILES, RING)


@pytest.fixture(scope="session")
def regressor():
    return HPFTRegressor(**BRIEF).fit(SMILES, SIZE)


@pytest.fixture(scope="session")
def brief():
    """A config that trains in a second."""
    parts = {key: BRIEF[key] for key in ("encoder", "tau")}
    return model_config(**parts, head="linear", seed=0, more=SEVERAL)


@pytest.fixture(scope="session")
def trained(brief, tmp_path_factory):
    """A model of several members, and the folder of the run that made it."""
    runs = tmp_path_factory.mktemp("runs")
    inference = Inference(members="networks")
    model, (folder,) = train(brief, size_task(), runs, inference, notes=(Note("a note"),))
    return model, folder
