"""Models for somebody with a table of molecules: fitted, trusted, explained, kept and shared."""

from molhpft.estimator.classes import HPFTClassifier, HPFTRegressor
from molhpft.estimator.model import Model
from molhpft.estimator.notes import DataWarning

__all__ = ["DataWarning", "HPFTClassifier", "HPFTRegressor", "Model"]
