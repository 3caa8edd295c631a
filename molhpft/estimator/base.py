"""What scikit-learn's estimators of this package share: options, fitting, features and files."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.graphs import graph_store
from molhpft.domains.molecules.reading import described
from molhpft.domains.molecules.splits import (
    CALIBRATION,
    calibration_notes,
    with_calibration,
)
from molhpft.domains.texts import listed
from molhpft.estimator.arrays import Labels, class_name, smiles_of
from molhpft.estimator.holdout import Holdout, held_out
from molhpft.estimator.model import Model
from molhpft.estimator.notes import DataWarning, notes_on
from molhpft.estimator.prediction import Prediction
from molhpft.estimator.settings import ENCODER, HEAD, TAU, Encoder, Tau, jsonable, settings
from molhpft.estimator.training import Answers, train
from molhpft.estimator.trust import CalibrationName
from molhpft.experiments.config import RunConfig

Array = NDArray[Any]


class Estimator(TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]  # untyped bases
    """Options, fitting, features and files, which both estimators share.

    Args:
        encoder: name of a shipped encoder, path of a weight file, or the keys of a config's
            `encoder`, such as `{"name": "gcn"}` for random weights.
        tau: epochs of head probing; several to choose from on validation, or "auto".
        head: as in a config, "mlp" or "linear".
        ensemble: whether networks of several taus answer together, as many as validate best.
        calibration: of probabilities, fitted to validation and calibration molecules together.
        level: share of molecules whose label is to be in its set, between 0 and 1, which
            calibration molecules see to.
        split: how validation and calibration molecules are set aside where `fit` is given none.
        split_seed: draws them where they are drawn at random; None for `random_state`.
        validation: share of validation molecules.
        config: further keys of a config, such as `{"finetune": {"epochs": 50}}`. It may say what
            an option here says (`encoder`, `head`, `method.tau`, `seed`) where that is left out.
        random_state: seed of every random number; an int gives the same model again.

    After `fit`: `tau_` (chosen), `energy_` (tau to energy), `history_` (a row an epoch), `notes_`
    (sentences about the data; the serious ones are warnings too) and `model_`.
    """

    _objective: Multilabel | Squared

    def __init__(
        self,
        *,
        encoder: Encoder = ENCODER,
        tau: Tau = TAU,
        head: str | Mapping[str, Any] = HEAD,
        ensemble: bool = True,
        calibration: CalibrationName = "platt",
        level: float = 0.9,
        split: Holdout = "scaffold",
        split_seed: int | None = None,
        validation: float = 0.1,
        config: Mapping[str, Any] | None = None,
        random_state: Any = 0,
    ) -> None:
        self.encoder = encoder
        self.tau = tau
        self.head = head
        self.ensemble = ensemble
        self.calibration = calibration
        self.level = level
        self.split = split
        self.split_seed = split_seed
        self.validation = validation
        self.config = config
        self.random_state = random_state

    def transform(self, molecules: Any) -> Array:
        """Features of molecules, those of all members side by side, float32 (n, k * d).

        NaN for a molecule that cannot be read.
        """
        check_is_fitted(self)
        store = graph_store(described(smiles_of(molecules)).graphs)
        rows = store.readable.nonzero().flatten()
        features = torch.full((len(store), self.model_.width), torch.nan)
        features[rows] = self.model_.features(store, rows)
        return features.numpy()

    def answers(self, molecules: Any) -> Prediction:
        """Values with their spread, sets and nearness to training; see `Prediction`."""
        check_is_fitted(self)
        return self.model_.predict(smiles_of(molecules))

    def save_pretrained(self, folder: str | Path, **options: Any) -> str | None:
        """Write the fitted estimator into a folder, without pickle; see huggingface_hub."""
        check_is_fitted(self)
        return self.model_.save_pretrained(folder, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the fitted estimator; see huggingface_hub."""
        check_is_fitted(self)
        return self.model_.push_to_hub(repo_id, **options)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Any:
        """The estimator that was saved in a folder, or on the hub under a name.

        Raises:
            FileNotFoundError: the folder holds no model.
            ValueError: it holds a damaged one, or none of this class.
        """
        model = Model.from_pretrained(name, **options)
        own = model.about.get("estimator", {"class": "model of `molhpft finetune`"})
        if own["class"] != cls.__name__:
            raise ValueError(f"{name} holds no {cls.__name__}, but a {own['class']}")
        return cls(**own["options"])._fitted(model)

    def fit(
        self,
        molecules: Any,
        y: Any,
        eval_set: tuple[Any, Any] | None = None,
        calibration_set: tuple[Any, Any] | None = None,
    ) -> Any:
        """Probe the head, finetune, choose on validation molecules, calibrate on further ones.

        Args:
            molecules: SMILES, (n,): a list, array, series, or a table with a column `smiles`.
            y: (n,) or (n, t); NaN where missing.
            eval_set: molecules and `y` to validate on; without it some of the others are set aside,
                and some more to calibrate prediction sets by.
            calibration_set: molecules and `y` to calibrate them by, beside an `eval_set`; without
                it half of the `eval_set` does, where that is enough.

        Raises:
            ValueError: molecules or targets cannot be learned from; the message says why.
        """
        smiles = smiles_of(molecules)
        labels = self._labels(y, len(smiles))
        config = self._config()
        self._check_split(eval_set)
        if eval_set is None and calibration_set is not None:
            raise ValueError("a calibration_set comes beside an eval_set; give both or neither")
        by_class = None if isinstance(self._objective, Squared) else labels.targets
        if eval_set is None:
            seed = config.seed if self.split_seed is None else int(self.split_seed)
            splits = held_out(smiles, self.split, share=self.validation, seed=seed, labels=by_class)
            targets, about_calibration = labels.targets, calibration_notes(splits)
        else:
            smiles, targets, given = self._given(smiles, labels, eval_set, calibration_set)
            splits = given
            if calibration_set is None:
                by_class = None if by_class is None else targets
                rng = torch.Generator().manual_seed(config.seed)
                splits = with_calibration(given, rng=rng, labels=by_class)
            about_calibration = calibration_notes(splits, given)
        task = molecule_task(
            "table",
            smiles=smiles,
            targets=targets,
            describes=labels.names,
            splits=splits,
            objective=self._objective,
            standardise=isinstance(self._objective, Squared),
            classes=[(class_name(zero), class_name(one)) for zero, one in labels.classes],
            notes=(*labels.notes, *about_calibration),
        )
        answers = Answers(self.ensemble, self.calibration, self.level)
        notes = notes_on(config, task)
        for note in notes:
            if note.serious:
                warnings.warn(note.text, DataWarning, stacklevel=2)
        with TemporaryDirectory() as folder:
            told = tuple(note.text for note in notes)
            model, made = train(config, task, Path(folder), answers, notes=told)
            history = made.read_lines("history.jsonl")
        model.about["history"] = history
        # a generator cannot be stored; the seed that was drawn from it can
        random_state = 0 if _is(self.random_state, 0) else config.seed
        model.about["estimator"] = {
            "class": type(self).__name__,
            "options": jsonable(self.get_params(deep=False) | {"random_state": random_state}),
            "classes": [[_plain(value) for value in pair] for pair in labels.classes],
            "flat": labels.flat,
        }
        return self._fitted(model)

    def _given(
        self, smiles: tuple[str, ...], labels: Labels, *sets: tuple[Any, Any] | None
    ) -> tuple[tuple[str, ...], Tensor, dict[str, Tensor]]:
        """Molecules and targets of training and of the sets behind it, and which rows are whose."""
        targets, ends = [labels.targets], [len(smiles)]
        for given in (one for one in sets if one is not None):
            others = smiles_of(given[0])
            known = self._labels(given[1], len(others), like=labels)
            _check_same_targets(labels, known)
            targets.append(known.targets)
            smiles += others
            ends.append(len(smiles))
        parts = torch.arange(len(smiles)).tensor_split(ends[:-1])
        names = ("train", "valid", CALIBRATION)
        return smiles, torch.cat(targets), dict(zip(names, parts, strict=False))

    def _config(self) -> RunConfig:
        """The config of the options; what one leaves at its default may stand in `config`."""
        return settings(
            encoder=None if _is(self.encoder, ENCODER) else self.encoder,
            tau=None if _is(self.tau, TAU) else self.tau,
            head=None if _is(self.head, HEAD) else self.head,
            seed=None if _is(self.random_state, 0) else _seed(self.random_state),
            more=self.config or {},
        )

    def _check_split(self, eval_set: object) -> None:
        if self.split not in get_args(Holdout):
            choices = " or ".join(get_args(Holdout))
            raise ValueError(f"split should be {choices}, got {self.split!r}")
        if self.split_seed is not None and (self.split != "random" or eval_set is not None):
            raise ValueError(
                f"split_seed is for split 'random' without an eval_set, got {self.split_seed!r} "
                f"with split {self.split!r}; leave it out"
            )

    def _fitted(self, model: Model) -> Any:
        about = model.about
        self.model_ = model
        self.tau_ = about["chosen_tau"]
        self.energy_ = {row["tau"]: row["energy"]["aie"] for row in about["branches"]}
        self.history_ = about["history"]
        self.notes_ = about["notes"]
        return self

    def _values(self, molecules: Any) -> Array:
        """Values (n,) or (n, t), as the targets came."""
        found = self.answers(molecules).values.numpy()
        values: Array = found[:, 0] if self.model_.about["estimator"]["flat"] else found
        return values

    @abstractmethod
    def _labels(self, y: Any, n: int, *, like: Labels | None = None) -> Labels:
        """Targets as they are learned; those of an `eval_set` as those that are learned from."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = tags.target_tags.multi_output = True
        return tags


def _is(option: Any, default: Any) -> bool:
    return isinstance(option, type(default)) and bool(option == default)


def _seed(state: Any) -> int:
    """The seed of a `random_state`: an integer of any type, or a number drawn from it."""
    return (
        int(state) if isinstance(state, Integral) else int(check_random_state(state).randint(2**31))
    )


def _check_same_targets(labels: Labels, others: Labels) -> None:
    """Refuse sets whose targets are others than those of training, or in another order."""
    unnamed = tuple(f"target {k}" for k in range(len(labels.names)))
    named = not labels.flat and unnamed not in (labels.names, others.names)
    if len(others.names) != len(labels.names) or (named and others.names != labels.names):
        raise ValueError(
            "an eval_set and a calibration_set should have the targets of training, "
            f"{listed(labels.names)}, in this order; got {listed(others.names)}"
        )


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label
