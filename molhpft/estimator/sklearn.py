"""What scikit-learn's estimators of this package share: options, fitting, features and files.

Estimators for scikit-learn: HP-FT of a pretrained encoder, from SMILES to answers.

From a user's few words to the config of a run.
"""

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from molhpft.config.options import Options, keywords
from molhpft.config.registry import METHODS
from molhpft.config.schema import DEFAULTS, Choice, RunConfig, idle, parse_config, without
from molhpft.config.used_keys import idle_message
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.files import listed
from molhpft.domains.molecules.checkpoints import fitting_encoder
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.fingerprints import featurized
from molhpft.domains.molecules.graphs import graph_store
from molhpft.domains.molecules.splits import CALIBRATION, calibration_notes, with_calibration
from molhpft.domains.weights import read_weights
from molhpft.estimator.confidence import CalibrationName, Prediction
from molhpft.estimator.labels import Labels, class_labels, class_name, number_labels, smiles_of
from molhpft.estimator.model import Model
from molhpft.estimator.notes import DataWarning, notes_on
from molhpft.estimator.train import Answers, Holdout, held_out, train

Encoder = str | Path | Mapping[str, Any]
Tau = int | Literal["auto"] | tuple[int, ...]

ENCODER = "gcn_muv"
TAU: Tau = "auto"
# what validated best in configs/sweeps/default_settings.yaml and is not a config's own default
HEAD = "mlp"
_DEFAULTS: Options = {**DEFAULTS, "finetune": {**DEFAULTS["finetune"], "batch_size": 32}}

_log = logging.getLogger(__name__)

IN_MEMORY = Choice("table", {})
"""The task of a config whose molecules are no file."""


def settings(
    *,
    encoder: Encoder | None = None,
    tau: Tau | None = None,
    head: str | Mapping[str, Any] | None = None,
    seed: int | None = None,
    more: Mapping[str, Any],
    task: Choice = IN_MEMORY,
) -> RunConfig:
    """The config of a model, of a few options and any further keys; each says what no other does.

    Args:
        encoder: name of a shipped encoder or path of a weight file, whose encoder is recognised; or
            the keys of a config's `encoder`, such as `{"name": "gcn"}` for random weights. Like the
            three options that follow, None where the user has not given it.
        tau: epochs of head probing, one or several, or "auto"; of the method in `more`, if any.
        head: as in a config.
        seed: of every random number.
        more: further keys of a config: `finetune`, `probe`, `device`, `cut`, ...; one of the
            options above where that is None. Where `finetune` says nothing else, batches are of 32.
        task: of the config.

    Raises:
        FileNotFoundError: there is no such weight file.
        ValueError: a key or value does not fit, is given twice or would mean nothing, or the
            weights are of no known encoder.
    """
    own = jsonable(more)
    _check_keys(own)
    raw = {
        "encoder": _choice("encoder", own, encoder, default=ENCODER),
        "head": _choice("head", own, head, default=HEAD),
        "method": _method(own.get("method", {}), tau),
        "seed": _once("seed", own, seed, default=0),
    }
    return parse_config(_serving({**own, **raw}, own, tau, task), task=task, defaults=_DEFAULTS)


def _serving(raw: Options, own: Options, tau: Tau | None, task: Choice) -> Options:
    """The config without what the option `tau` takes the effect from: `probe` serves every tau.

    A search over tau tries 0 too, with one config for all.
    """
    if tau is None:
        return raw
    probed = {**raw, "method": {**raw["method"], "tau": "auto"}}
    nothing = idle(raw, task=task, defaults=_DEFAULTS)
    before = idle(probed, task=task, defaults=_DEFAULTS)
    fallen = {key: why for key, why in nothing.items() if key not in before}
    if fallen:
        _log.warning("%s; left out of this run", idle_message(fallen))
    return without(raw, fallen)


def _check_keys(own: Options) -> None:
    """Refuse keys that another option stands for."""
    if "task" in own:
        raise ValueError(
            f"task is the molecules that are given and no key of this config, got {own['task']!r}; "
            "split, split_seed and validation say which are held out"
        )
    if "members" in own:
        raise ValueError(
            "members is no key of this config: the option ensemble (--ensemble, --no-ensemble) "
            "says whether several networks answer"
        )


def _once(key: str, own: Options, option: Any, *, default: Any) -> Any:
    """The value of a key that an option or the config gives, not both."""
    if option is not None and key in own:
        raise ValueError(
            f"{key} is given twice, by its option as {option} and in the config as {own[key]}; "
            "leave one out"
        )
    return own.get(key, default if option is None else option)


def _choice(key: str, own: Options, option: Any, *, default: str) -> Any:
    """An encoder or head; keys without a name go to the one that the option names."""
    found = _encoder if key == "encoder" else _named
    if not isinstance(own.get(key), Mapping) or "name" in own[key]:
        given = _once(key, own, option, default=default)
        return given if key in own else found(given)
    named = found(default if option is None else option)
    for inner in own[key].keys() & (option.keys() if isinstance(option, Mapping) else set()):
        _once(inner, own[key], named[inner], default=None)
    return {**named, **own[key]}


def _named(given: Any) -> Options:
    return {"name": given} if isinstance(given, str) else dict(jsonable(given))


def _method(given: Any, tau: Tau | None) -> Any:
    """The method's keys; `tau` is among them where it is given, or where the method needs one."""
    given = {"name": given} if isinstance(given, str) else given
    if not isinstance(given, Mapping):
        return given  # for `parse_config` to refuse
    method = {"name": "hp_ft", **given}
    name = method["name"]
    if not isinstance(name, str) or name not in METHODS:
        return method
    known = keywords(METHODS[name])
    if tau is not None and "tau" not in known:
        raise ValueError(f"method {name} is not probed for tau epochs; leave tau out, got {tau}")
    needed = "tau" in known and known["tau"].default is known["tau"].empty
    taus = _once("tau", method, tau, default=TAU if needed else None)
    if taus is None:
        return method
    taus = jsonable(taus)
    return {**method, "tau": taus if isinstance(taus, str | list) else [taus]}


def _encoder(given: Any) -> Options:
    if isinstance(given, Mapping):
        return dict(jsonable(given))
    path = Path(given)
    return {**fitting_encoder(read_weights(path)), "weights": str(path)}


def jsonable(value: Any) -> Any:
    """A value as YAML and JSON hold it: no numbers or arrays of numpy, paths as text."""
    if isinstance(value, Mapping):
        return {key: jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range):
        return [jsonable(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


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
        store = graph_store(featurized(smiles_of(molecules)).graphs)
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
            target_names=labels.names,
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
