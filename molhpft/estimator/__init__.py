"""Models for somebody with a table of molecules: fit, predict with uncertainty, explain, share."""

from molhpft.estimator.model import Model, Prediction
from molhpft.estimator.notes import DataWarning
from molhpft.estimator.sklearn import HPFTClassifier, HPFTRegressor

__all__ = ["DataWarning", "HPFTClassifier", "HPFTRegressor", "Model", "Prediction"]
