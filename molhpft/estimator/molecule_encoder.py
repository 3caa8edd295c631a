"""A transformer of scikit-learn: from SMILES to the features of a pretrained encoder."""

from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.estimator.frozen import FrozenEncoder, feature_names, frozen_encoder, smiles_features
from molhpft.estimator.labels import smiles_of

BATCH_SIZE = 512


class MoleculeEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    """Features of molecules by a pretrained encoder that stays as it is.

    It learns nothing: `fit` checks the options and the molecules and loads the weights, which a
    pickle of the fitted transformer holds, so that it gives the same features with any later
    version's shipped encoders.

    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> smiles = ["CCO", "CCCO", "CCCCO", "c1ccccc1"]
    >>> MoleculeEncoder().fit_transform(smiles).shape
    (4, 1024)
    >>> model = make_pipeline(MoleculeEncoder(), StandardScaler(), Ridge())
    >>> model.fit(smiles, [46.1, 60.1, 74.1, 78.1]).predict(["CCCCCO"]).shape
    (1,)

    Args:
        encoder: name of a shipped encoder, path of a weight file or of a model's folder, or
            `hub:owner/name`.
        batch_size: most molecules that are read, and embedded, at a time: a few such batches are
            in memory beside the result.

    After `fit`: `encoder_`, which has `width` features.
    """

    encoder_: FrozenEncoder

    def __init__(
        self, encoder: str | Path = DEFAULT_ENCODER, *, batch_size: int = BATCH_SIZE
    ) -> None:
        self.encoder = encoder
        self.batch_size = batch_size

    def fit(self, molecules: Any, y: Any = None) -> "MoleculeEncoder":
        """Check options and molecules, and load the weights.

        Args:
            molecules: SMILES, (n,): a list, array, series, or a table with a column `smiles` or
                with one column.
            y: is not looked at.

        Raises:
            FileNotFoundError: there is no such encoder.
            ValueError: these are no texts, or an option does not fit.
        """
        if not isinstance(self.encoder, str | Path):
            raise ValueError(
                "encoder should be the name of a shipped encoder or the path of a weight file, "
                f"got {self.encoder!r}"
            )
        size = self.batch_size
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise ValueError(f"batch_size should be a whole number from 1, got {size!r}")
        smiles_of(molecules)
        self.encoder_ = frozen_encoder(self.encoder)
        return self

    def transform(self, molecules: Any) -> NDArray[np.float32]:
        """Features, float32 (n, d); NaN for a molecule that cannot be read.

        Raises:
            ValueError: these are no texts.
        """
        check_is_fitted(self)
        return smiles_features(self.encoder_, smiles_of(molecules), size=int(self.batch_size))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the features: `z0`, `z1`, ..., as `molhpft embed` writes them.

        Args:
            input_features: are not looked at: what comes in is one column of text.
        """
        check_is_fitted(self)
        return np.array(feature_names(self.encoder_), dtype=np.object_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = True
        return tags
