"""Models for somebody with a table of molecules: fitted, trusted, explained, kept and shared."""

from molhpft.estimator.classes import HPFTClassifier, HPFTRegressor
from molhpft.estimator.model import Model

__all__ = ["HPFTClassifier", "HPFTRegressor", "Model"]
