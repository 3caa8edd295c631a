"""Estimators of scikit-learn: HP-FT of a pretrained encoder, from SMILES to predictions."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from molhpft.config.schema import RunConfig
from molhpft.core.data import Task
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.files import Json, listed
from molhpft.domains.molecules.calibration_split import calibration_notes, with_calibration
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.grouped_splits import replicates
from molhpft.domains.molecules.splits import CALIBRATION
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.estimator.calibrate import CalibrationName
from molhpft.estimator.frozen import smiles_features
from molhpft.estimator.labels import (
    Labels,
    class_labels,
    class_name,
    groups_of,
    number_labels,
    smiles_of,
    times_of,
)
from molhpft.estimator.model import COMMIT_MESSAGE, Model, Prediction
from molhpft.estimator.notes import DataWarning, notes_on
from molhpft.estimator.settings import (
    HEAD,
    TAU,
    Encoder,
    Inference,
    Members,
    Tau,
    jsonable,
    model_config,
)
from molhpft.estimator.train import train
from molhpft.estimator.validation import FOLDS, Holdout, check_folds, draw_folds, holdout_split
from molhpft.run.folder import RunFolder

Array = NDArray[Any]
Examples = tuple[Any, Any]  # molecules and their targets

_VALIDATION = 0.1


class Estimator(TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]  # untyped bases
    """Options, fitting, features and files of both estimators.

    Args:
        encoder: name of a shipped encoder, path of a weight file, or the keys of a config's
            `encoder`, such as `{"name": "gcn"}` for random weights.
        tau: epochs of head probing; several to choose from on validation, or "auto".
        head: as in a config, "mlp" or "linear".
        members: what may predict together: "all", finetuned "networks" alone, Gaussian processes
            ("kernels") alone, or that on frozen "features" or on "fingerprints" alone.
        calibration: method for probabilities; "auto" for "venn_abers" where it is better than
            "platt" on molecules that neither was fitted to, else for "platt".
        target_coverage: share of molecules whose label should be in its prediction set, between 0
            and 1, which calibration molecules see to.
        folds: in how many parts the molecules are divided, each of which is predicted by members
            that were trained on the others; 0 for one part of validation and one of calibration
            molecules. "auto" for 5, and for 0 where `fit` is given an `eval_set` or `split` is
            set.
        split: how folds or held-out molecules are drawn, "random" or "scaffold"; None for random
            folds, and for rare scaffolds without them.
        split_seed: of what is drawn at random; None for `random_state`.
        validation: share of validation molecules where there are no folds.
        config: further keys of a config, such as `{"finetune": {"epochs": 50}}`. It may say what
            an option here says (`encoder`, `head`, `method.tau`, `seed`) where that is left out.
        runs: folder of the runs that finetune networks: an interrupted `fit` resumes there, and a
            finished run is found by its content. None for a temporary one.
        random_state: seed of every random number; an int gives the same model again.

    After `fit`: `tau_` (of the networks that weigh most; None where none do), `energy_` (tau to
    energy), `history_` (a row an epoch), `notes_` (sentences about the data; the serious ones are
    warnings, too), `out_of_fold_` (numbers, or probabilities of the greater class, of the molecules
    in `fit`, by members that did not train on them; NaN for those that only trained; files do not
    hold it; each fold has a calibration of its own, which ranks molecules of different folds a
    little worse than the scores of the card do) and `model_`.
    """

    _objective: Multilabel | Squared

    def __init__(
        self,
        *,
        encoder: Encoder = DEFAULT_ENCODER,
        tau: Tau = TAU,
        head: str | Mapping[str, Any] = HEAD,
        members: Members = Inference.members,
        calibration: CalibrationName = Inference.calibration,
        target_coverage: float = Inference.target_coverage,
        folds: int | Literal["auto"] = "auto",
        split: Holdout | None = None,
        split_seed: int | None = None,
        validation: float = _VALIDATION,
        config: Mapping[str, Any] | None = None,
        runs: str | Path | None = None,
        random_state: Any = 0,
    ) -> None:
        self.encoder = encoder
        self.tau = tau
        self.head = head
        self.members = members
        self.calibration = calibration
        self.target_coverage = target_coverage
        self.folds = folds
        self.split = split
        self.split_seed = split_seed
        self.validation = validation
        self.config = config
        self.runs = runs
        self.random_state = random_state

    def fit(
        self,
        molecules: Any,
        y: Any,
        eval_set: Examples | None = None,
        calibration_set: Examples | None = None,
        groups: Any = None,
        times: Any = None,
    ) -> Any:
        """Probe the head, finetune, and choose and calibrate on molecules not trained on.

        Args:
            molecules: SMILES, (n,): a list, array, series, or a table with a column `smiles`.
            y: (n,) or (n, t); NaN where missing.
            eval_set: molecules and `y` to validate on; without it some of the others are held out,
                and some more to calibrate prediction sets.
            calibration_set: molecules and `y` to calibrate them, beside an `eval_set`; without it
                half of the `eval_set` does, where that is enough.
            groups: (n,), of molecules that are held out together, such as series or papers.
            times: (n,), numbers or dates; what is held out is then newer than what trains.

        Raises:
            ValueError: molecules or targets cannot be learned from; the message says why.
        """
        smiles = smiles_of(molecules)
        labels = self._labels(y, len(smiles))
        self._check_sets(eval_set, calibration_set)
        grouping = self._grouping(groups, times, len(smiles), eval_set)
        count = self._fold_count(eval_set)
        self._check_idle(count, eval_set, grouping)
        drawn = None if _is(self.random_state, 0) else _seed(self.random_state)
        seed = self._seed_of_splits(drawn)
        sets = eval_set, calibration_set
        task = self._task(smiles, labels, seed, *sets, by_folds=count > 0, grouping=grouping)
        config = self._config(len(task.rows("train")), drawn)
        folds = draw_folds(task, self.split or "random", count=count, seed=seed, **grouping)
        inference = Inference(self.members, self.calibration, self.target_coverage)
        notes = notes_on(config, task, reads_encoder=self.members != "fingerprints")
        for note in notes:
            if note.serious:
                warnings.warn(note.text, DataWarning, stacklevel=2)
        with TemporaryDirectory() if self.runs is None else nullcontext(self.runs) as folder:
            model, runs = train(config, task, Path(folder), inference, folds=folds, notes=notes)
            model.about["history"] = _history(runs)
        # a generator cannot be stored; the seed that was drawn from it can
        random_state = 0 if _is(self.random_state, 0) else config.seed
        model.about["estimator"] = {
            "class": type(self).__name__,
            "options": jsonable(self.get_params(deep=False) | {"random_state": random_state}),
            "classes": jsonable(labels.classes),
            "flat": labels.flat,
        }
        assert model.held_out is not None
        values = model.held_out.of_all(len(smiles)).values.numpy()
        self.out_of_fold_ = values[:, 0] if labels.flat else values
        return self._with_model(model)

    def transform(self, molecules: Any) -> Array:
        """Features of molecules, those of all members side by side, float32 (n, k * d).

        NaN for a molecule that cannot be read.
        """
        check_is_fitted(self)
        return smiles_features(self.model_, smiles_of(molecules))

    def predict_with_uncertainty(self, molecules: Any) -> Prediction:
        """Values, standard deviations, prediction sets and applicability; see `Prediction`."""
        check_is_fitted(self)
        return self.model_.predict(smiles_of(molecules))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the fitted estimator into a folder, without pickle."""
        check_is_fitted(self)
        self.model_.save_pretrained(folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = COMMIT_MESSAGE,
    ) -> str:
        """Upload the fitted estimator; see `Model.push_to_hub`."""
        check_is_fitted(self)
        return self.model_.push_to_hub(
            repo_id, private=private, token=token, commit_message=commit_message
        )

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub: Any) -> Any:
        """The estimator that was saved in a folder, or is on the hub under that name.

        Args:
            name: of a folder, or `owner/name`.
            hub: options of `Model.from_pretrained`.

        Raises:
            FileNotFoundError: the folder holds no model.
            ValueError: it holds a damaged one, or none of this class, or has no such option.
        """
        model = Model.from_pretrained(name, **hub)
        saved = model.about.get("estimator", {"class": "model of `molhpft finetune`"})
        if saved["class"] != cls.__name__:
            raise ValueError(
                f"{name} holds no {cls.__name__}, but a {saved['class']}; Model.from_pretrained "
                "reads any"
            )
        return cls(**saved["options"])._with_model(model)

    def _fold_count(self, eval_set: object) -> int:
        """How many folds there are, 0 for none."""
        if self.folds == "auto":
            return FOLDS if eval_set is None and self.split is None else 0
        check_folds(self.folds, or_else="'auto'")
        if self.folds and eval_set is not None:
            raise ValueError("an eval_set chooses in the place of folds; leave one of them out")
        return int(self.folds)

    def _grouping(self, groups: Any, times: Any, n: int, eval_set: object) -> Json:
        """Groups and times by name, those that are given."""
        grouping: Json = {} if groups is None else {"groups": groups_of(groups, n)}
        if times is not None:
            grouping["times"] = times_of(times, n)
        idle = {"eval_set": eval_set, "split": self.split}
        if self.folds or times is not None:  # else it deals the groups
            idle["split_seed"] = self.split_seed
        for name, option in idle.items():
            if grouping and option is not None:
                raise ValueError(
                    f"{listed(grouping)} should alone say what is held out; leave {name} out"
                )
        return grouping

    def _seed_of_splits(self, drawn: int | None) -> int:
        """The seed of what is held out: that of the config, unless there is one of its own."""
        if self.split_seed is not None:
            return int(self.split_seed)
        given = self._further_keys().get("seed", drawn)
        # one of any other kind is refused with the config
        return int(given) if isinstance(given, Integral) else 0

    def _config(self, molecules: int, seed: int | None) -> RunConfig:
        """The config of the options; one that is left at its default may stand in `config`.

        Args:
            molecules: that train.
            seed: of every random number; None where it is left at its default.
        """
        return model_config(
            encoder=None if _is(self.encoder, DEFAULT_ENCODER) else self.encoder,
            tau=None if _is(self.tau, TAU) else self.tau,
            head=None if _is(self.head, HEAD) else self.head,
            seed=seed,
            more=self._further_keys(),
            molecules=molecules,
            members=self.members,
        )

    def _further_keys(self) -> Mapping[str, Any]:
        if self.config is not None and not isinstance(self.config, Mapping):
            raise ValueError(
                "config should be a mapping such as {'finetune': {'epochs': 10}}, got "
                f"{self.config!r:.60}"
            )
        return self.config or {}

    def _check_sets(self, eval_set: object, calibration_set: object) -> None:
        if self.split is not None and self.split not in get_args(Holdout):
            choices = " or ".join(get_args(Holdout))
            raise ValueError(f"split should be {choices}, got {self.split!r}")
        if self.split_seed is not None and (self.split == "scaffold" or eval_set is not None):
            raise ValueError(
                f"split_seed is for split 'random' without an eval_set, got {self.split_seed!r} "
                f"with split {self.split!r}; leave it out"
            )
        if eval_set is None and calibration_set is not None:
            raise ValueError("a calibration_set comes beside an eval_set; give both or neither")

    def _check_idle(self, folds: int, eval_set: object, grouping: Json) -> None:
        """Refuse options of a held-out part where there is none, or none that is drawn.

        Raises:
            ValueError: one is given.
        """
        if self.validation != _VALIDATION and (folds or eval_set is not None):
            instead = f"{folds} folds choose" if folds else "an eval_set chooses"
            raise ValueError(
                f"validation {self.validation} is the share of one held-out part, and {instead} in "
                "its place; leave it out, or set folds=0 without an eval_set"
            )
        if self.split_seed is not None and self.split is None and not folds and not grouping:
            raise ValueError(
                f"split_seed is of what is drawn at random, got {self.split_seed!r}, and without "
                "folds rare scaffolds are held out; set split='random', or leave it out"
            )

    def _task(
        self,
        smiles: tuple[str, ...],
        labels: Labels,
        seed: int,
        eval_set: Examples | None,
        calibration_set: Examples | None,
        *,
        by_folds: bool,
        grouping: Json,
    ) -> Task:
        regression, targets = isinstance(self._objective, Squared), labels.targets
        about_calibration: tuple[str, ...] = ()
        if by_folds:
            splits = {"train": torch.arange(len(smiles))}
        elif eval_set is None:
            splits = holdout_split(
                smiles,
                self.split or "scaffold",
                validation=self.validation,
                seed=seed,
                labels=None if regression else targets,
                **grouping,
            )
            about_calibration = calibration_notes(splits)
        else:
            smiles, targets, splits = self._joined(smiles, labels, eval_set, calibration_set)
            given = splits
            if calibration_set is None:
                rng = torch.Generator().manual_seed(seed)
                splits = with_calibration(
                    given,
                    rng=rng,
                    together=replicates(smiles),
                    labels=None if regression else targets,
                )
            about_calibration = calibration_notes(splits, given)
        return molecule_task(
            "table",
            smiles=smiles,
            targets=targets,
            target_names=labels.names,
            splits=splits,
            objective=self._objective,
            standardise=regression,
            classes=[(class_name(zero), class_name(one)) for zero, one in labels.classes],
            notes=(*labels.notes, *about_calibration),
        )

    def _joined(
        self, smiles: tuple[str, ...], labels: Labels, *sets: Examples | None
    ) -> tuple[tuple[str, ...], Tensor, dict[str, Tensor]]:
        """Molecules and targets of training and of the given sets end to end, and their rows."""
        targets, ends = [labels.targets], [len(smiles)]
        for examples in (one for one in sets if one is not None):
            others = smiles_of(examples[0])
            other_labels = self._labels(examples[1], len(others), like=labels)
            _check_same_targets(labels, other_labels)
            targets.append(other_labels.targets)
            smiles += others
            ends.append(len(smiles))
        parts = torch.arange(len(smiles)).tensor_split(ends[:-1])
        names = ("train", "valid", CALIBRATION)
        return smiles, torch.cat(targets), dict(zip(names, parts, strict=False))

    def _with_model(self, model: Model) -> Any:
        about = model.about
        self.model_ = model
        self.tau_ = about["chosen_tau"]
        self.energy_ = {row["tau"]: row["energy"]["aie"] for row in about["branches"]}
        self.history_ = about["history"]
        self.notes_ = about["notes"]
        return self

    @property
    def _saved(self) -> Json:
        """What the fitted model says about its estimator."""
        check_is_fitted(self)
        saved: Json = self.model_.about["estimator"]
        return saved

    def _values(self, molecules: Any) -> Array:
        """Values (n,) or (n, t), as the targets came."""
        values: Array = self.predict_with_uncertainty(molecules).values.numpy()
        return values[:, 0] if self._saved["flat"] else values

    @abstractmethod
    def _labels(self, y: Any, n: int, *, like: Labels | None = None) -> Labels:
        """Targets as they are learned; those of an `eval_set` are read like those of training."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = tags.target_tags.multi_output = True
        return tags


class HPFTClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]  # untyped base
    """Binary classification of molecules, of one target or several (with missing labels).

    >>> smiles = ["C" * n + "O" for n in range(2, 22)] + ["C1CC1" + "C" * n for n in range(20)]
    >>> has_ring = ["no"] * 20 + ["yes"] * 20
    >>> small = {"encoder": {"name": "gcn", "layers": 1, "width": 8}, "tau": 1, "split": "random"}
    >>> classifier = HPFTClassifier(**small, config={"finetune": {"epochs": 1}})
    >>> probabilities = classifier.fit(smiles, has_ring).predict_proba(["CCO", "C1CCCCC1"])
    >>> probabilities.shape, classifier.classes_.tolist()
    ((2, 2), ['no', 'yes'])
    """

    _objective = Multilabel()

    @property
    def classes_(self) -> Any:
        """The two labels of the target, as 0 and 1; a list of pairs for several targets."""
        pairs = [np.array(pair) for pair in self._saved["classes"]]
        return pairs[0] if self._saved["flat"] else pairs

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
        chosen = self._chosen(molecules)
        if chosen.ndim == 1:
            labels: Array = self.classes_[chosen]
            return labels
        columns = zip(self.classes_, chosen.T, strict=True)
        predicted = [pair[column] for pair, column in columns]
        if len({labels.dtype.kind for labels in predicted}) > 1:  # a number is no word
            predicted = [labels.astype(object) for labels in predicted]
        return np.stack(predicted, axis=1)

    def score(self, molecules: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of molecules all of whose labels are predicted, of those that have one.

        Args:
            molecules: SMILES, (n,), as for `fit`.
            y: (n,) or (n, t), read as `fit` reads it: spelling does not count, NaN where missing.
            sample_weight: (n,), how much each molecule counts; None for alike.

        Raises:
            ValueError: a molecule cannot be read, a label is none of the classes, or all are
                missing.
        """
        chosen = self._chosen(molecules)
        check_consistent_length(chosen, sample_weight)
        pairs = tuple((zero, one) for zero, one in self._saved["classes"])
        labels = class_labels(y, len(chosen), classes=pairs).targets.numpy()
        missing = np.isnan(labels)
        scored = ~missing.all(1)
        if not scored.any():
            raise ValueError("a score needs molecules with labels; all labels are missing")
        right = (missing | (labels == chosen.reshape(labels.shape))).all(1)[scored]
        weights = None if sample_weight is None else np.asarray(sample_weight)[scored]
        return float(accuracy_score(np.ones_like(right), right, sample_weight=weights))

    def _chosen(self, molecules: Any) -> Array:
        """0 or 1, the more probable class of each target, (n,) or (n, t)."""
        p = self._values(molecules)
        _check_predicted(p, molecules, "has no label; predict_proba gives NaN for it")
        return (p > 0.5).astype(int)

    def _labels(self, y: Any, n: int, *, like: Labels | None = None) -> Labels:
        return class_labels(y, n, classes=like.classes if like else None)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        return tags


class HPFTRegressor(RegressorMixin, Estimator):  # type: ignore[misc]  # untyped base
    """Regression of numbers that molecules have, one or several (with missing ones).

    >>> smiles = ["C" * n + end for n in range(1, 21) for end in ("O", "N")]
    >>> small = {"encoder": {"name": "gcn", "layers": 1, "width": 8}, "tau": 1, "split": "random"}
    >>> regressor = HPFTRegressor(**small, config={"finetune": {"epochs": 1}})
    >>> regressor.fit(smiles, [len(text) for text in smiles]).predict(["CCO", "unreadable"]).shape
    (2,)
    """

    _objective = Squared()

    def predict(self, molecules: Any) -> Array:
        """Numbers in the unit of the targets, (n,) or (n, t); NaN for unreadable molecules."""
        return self._values(molecules)

    def score(self, molecules: Any, y: Any, sample_weight: Any = None) -> float:
        """Coefficient of determination of each target, of its measured labels; mean over targets.

        Args:
            molecules: SMILES, (n,), as for `fit`.
            y: (n,) or (n, t), read as `fit` reads it, NaN where missing.
            sample_weight: (n,), how much each molecule counts; None for alike.

        Raises:
            ValueError: a molecule cannot be read, or all labels are missing.
        """
        predicted = self._values(molecules)
        check_consistent_length(predicted, sample_weight)
        _check_predicted(predicted, molecules, "has no prediction; leave it out")
        labels = number_labels(y, len(predicted)).targets.numpy()
        targets = zip(labels.T, predicted.reshape(labels.shape).T, strict=True)
        weights = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight)
        scores = [
            r2_score(truth[some], answer[some], sample_weight=weights[some])
            for truth, answer in targets
            if (some := ~np.isnan(truth)).any()
        ]
        if not scores:
            raise ValueError("a score needs molecules with labels; all labels are missing")
        return float(np.mean(scores))

    def _labels(self, y: Any, n: int, *, like: Labels | None = None) -> Labels:
        return number_labels(y, n)


def _check_predicted(values: Array, molecules: Any, instead: str) -> None:
    """Refuse molecules that cannot be read, whose values (n,) or (n, t) are NaN."""
    broken = np.isnan(values).any(axis=tuple(range(1, values.ndim)))
    for row in np.flatnonzero(broken)[:1]:
        raise ValueError(
            f"row {row}, {smiles_of(molecules)[row]!r:.60}, cannot be read as a molecule and "
            f"{instead}"
        )


def _history(runs: Sequence[RunFolder]) -> list[Json]:
    """A row for every epoch of every run, with the number of the run."""
    return [
        {"run": number, **row}
        for number, run in enumerate(runs)
        for row in run.read_lines("history.jsonl")
    ]


def _is(option: Any, default: Any) -> bool:
    return isinstance(option, type(default)) and bool(option == default)


def _seed(state: Any) -> int:
    """The seed of a `random_state`: an integer of any type, or a number drawn from it."""
    return (
        int(state) if isinstance(state, Integral) else int(check_random_state(state).randint(2**31))
    )


def _check_same_targets(labels: Labels, others: Labels) -> None:
    """Refuse sets whose targets are not those of training, or in another order."""
    unnamed = tuple(f"target {k}" for k in range(len(labels.names)))
    named = not labels.flat and unnamed not in (labels.names, others.names)
    if len(others.names) != len(labels.names) or (named and others.names != labels.names):
        raise ValueError(
            "an eval_set and a calibration_set should have the targets of training, "
            f"{listed(labels.names)}, in this order; got {listed(others.names)}"
        )
