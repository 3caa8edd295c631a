"""Models for somebody with a table of molecules: fit, predict with uncertainty, explain, share.

What needs scikit-learn is imported when it is asked for: its import takes as long as PyTorch's, and
a model that is loaded to predict does without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from molhpft.estimator.model import Model, Prediction

if TYPE_CHECKING:
    from molhpft.estimator.molecule_encoder import MoleculeEncoder
    from molhpft.estimator.notes import DataWarning
    from molhpft.estimator.sklearn import HPFTClassifier, HPFTRegressor

__all__ = [
    "DataWarning",
    "HPFTClassifier",
    "HPFTRegressor",
    "Model",
    "MoleculeEncoder",
    "Prediction",
]

_LATER = {
    "DataWarning": "notes",
    "HPFTClassifier": "sklearn",
    "HPFTRegressor": "sklearn",
    "MoleculeEncoder": "molecule_encoder",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
