import pytest

from molhpft.estimator import HPFTClassifier, HPFTRegressor
from tests.estimator.rings import BRIEF, RING, SIZE, SMILES


@pytest.fixture(scope="session")
def classifier():
    return HPFTClassifier(**BRIEF).fit(SMILES, RING)


@pytest.fixture(scope="session")
def regressor():
    return HPFTRegressor(**BRIEF).fit(SMILES, SIZE)
