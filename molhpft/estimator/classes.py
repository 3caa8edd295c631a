"""Estimators for scikit-learn: HP-FT of a pretrained encoder, from SMILES to answers."""

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from molhpft.core.objectives import Multilabel, Squared
from molhpft.estimator.arrays import Labels, class_labels, number_labels, smiles_of
from molhpft.estimator.base import Array, Estimator


class HPFTClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]  # untyped base
    """Yes or no questions about molecules, one or several (with missing answers)."""

    _objective = Multilabel()

    @property
    def classes_(self) -> Any:
        """The two labels of the target, the lesser first; a list of pairs for several targets."""
        check_is_fitted(self)
        own = self.model_.about["estimator"]
        pairs = [np.array(pair) for pair in own["classes"]]
        return pairs[0] if own["flat"] else pairs

    def predict_proba(self, molecules: Any) -> Array:
        """Calibrated probabilities: (n, 2) for one target, (n, t) of the greater label for several.

        NaN for a molecule that cannot be read.
        """
        p = self._values(molecules)
        return np.stack([1 - p, p], axis=1) if p.ndim == 1 else p

    def predict(self, molecules: Any) -> Array:
        """The more probable label of each target, (n,) or (n, t).

        Raises:
            ValueError: a molecule cannot be read; `predict_proba` gives NaN for it.
        """
        p = self._values(molecules)
        unread = np.flatnonzero(np.isnan(p.reshape(len(p), -1)).any(1))
        for row in unread[:1]:
            raise ValueError(
                f"row {row}, {smiles_of(molecules)[row]!r:.60}, cannot be read as a molecule and "
                "has no label; predict_proba gives NaN for it"
            )
        if p.ndim == 1:
            chosen: Array = self.classes_[(p > 0.5).astype(int)]
            return chosen
        columns = zip(self.classes_, (p > 0.5).astype(int).T, strict=True)
        return np.stack([pair[column] for pair, column in columns], axis=1)

    def _labels(self, y: Any, n: int, *, like: Labels | None = None) -> Labels:
        return class_labels(y, n, classes=like.classes if like else None)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        return tags


class HPFTRegressor(RegressorMixin, Estimator):  # type: ignore[misc]  # untyped base
    """Numbers that molecules have, one or several (with missing ones)."""

    _objective = Squared()

    def predict(self, molecules: Any) -> Array:
        """Numbers in the unit of the targets, (n,) or (n, t); NaN for what cannot be read."""
        return self._values(molecules)

    def _labels(self, y: Any, n: int, *, like: Labels | None = None) -> Labels:
        return number_labels(y, n)
