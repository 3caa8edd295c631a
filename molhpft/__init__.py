"""Prepare the task head, then finetune: HP-FT transfer learning for molecules and graphs."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molhpft.config.schema import load_config
    from molhpft.estimator.model import Model
    from molhpft.estimator.molecule_encoder import MoleculeEncoder
    from molhpft.estimator.sklearn import HPFTClassifier, HPFTRegressor

__all__ = ["HPFTClassifier", "HPFTRegressor", "Model", "MoleculeEncoder", "load_config"]
__version__ = version("molhpft")

_MODULES = {
    "HPFTClassifier": "molhpft.estimator.sklearn",
    "HPFTRegressor": "molhpft.estimator.sklearn",
    "Model": "molhpft.estimator.model",
    "MoleculeEncoder": "molhpft.estimator.molecule_encoder",
    "load_config": "molhpft.config.schema",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used: importing the package alone takes no time."""
    if name not in _MODULES:
        raise AttributeError(f"module 'molhpft' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
