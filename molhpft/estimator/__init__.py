"""Models for somebody with a table of molecules: fitted, trusted, explained, kept and shared."""

from molhpft.estimator.model import Model
from molhpft.estimator.notes import DataWarning
from molhpft.estimator.sklearn import HPFTClassifier, HPFTRegressor

__all__ = ["DataWarning", "HPFTClassifier", "HPFTRegressor", "Model"]
