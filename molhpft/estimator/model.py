"""A fitted model: members that answer together, with their uncertainty; in a folder, on the hub.

A folder holds config.json, model.safetensors and a card (README.md). Nothing in it is unpickled.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from molhpft import __version__
from molhpft.config.build import shaped_network
from molhpft.config.schema import Choice, beside_of, checked_choice, plain, without_beside
from molhpft.core.determinism import deterministic_on_gpus
from molhpft.core.evaluate import inference, scattered
from molhpft.core.network import Chain, Network
from molhpft.core.objectives import Multilabel, Squared
from molhpft.core.standardise import ending_standardised
from molhpft.domains.extras import require
from molhpft.domains.files import Json, digest, listed, read_json, save_tensors
from molhpft.domains.molecules.examples import ZERO_ONE
from molhpft.domains.molecules.featurized import Featurized, Reading, featurized
from molhpft.domains.molecules.fingerprints import unpack_bits
from molhpft.domains.molecules.further_columns import store_beside
from molhpft.domains.molecules.graphs import GraphStore
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.domains.weights import ABOUT, CARD, FILES, MEMBER, hub_folder, strip_prefix
from molhpft.estimator.blend import Line
from molhpft.estimator.calibrate import Uncertainty, uncertainty_from
from molhpft.estimator.card import model_card
from molhpft.estimator.frozen import backbone_features, unlabelled_batches
from molhpft.estimator.held_out import HeldOutPredictions, candidate_std
from molhpft.estimator.kernel_models import KernelModels, kernel_models_from
from molhpft.measure.uncertainty import weighted_mean, weighted_std

CONFIG, WEIGHTS, _ = FILES
# raised when folders are written so that another version cannot read them, or would misread them
FORMAT = 6

COMMIT_MESSAGE = "Push model using molhpft"

_UNCERTAINTY, _KERNELS, _SMILES = "uncertainty.", "kernels.", "training_smiles"
_SLOPES, _OFFSETS = "lines.slopes", "lines.offsets"
_KINDS = {Multilabel: "classification", Squared: "regression"}


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions for n molecules and t targets; NaN, False or -1 for those that are unreadable.

    Attributes:
        readable: bool (n,), whether the SMILES is that of a molecule.
        values: float64 (n, t), calibrated probabilities, or numbers in the unit of the target.
        std: float64 (n, t), standard deviation over the members, by their weights, in the unit of
            `values`; NaN with a single member.
        sets: prediction sets at the model's target coverage: for classes bool (n, t, 2), whether 0
            and whether 1 is in the set; for a regression float64 (n, t, 2), the ends of an
            interval. Outside the applicability domain, and where calibration molecules are too few,
            nothing is ruled out: both classes, or infinite ends.
        similarity: float32 (n,), Tanimoto similarity to the nearest of `Model.training_smiles`.
        nearest: int64 (n,), index of that molecule in `Model.training_smiles`.
        in_domain: bool (n,), whether a molecule is within the applicability domain: as near to
            training molecules as they are to one another.
    """

    readable: Tensor
    values: Tensor
    std: Tensor
    sets: Tensor
    similarity: Tensor
    nearest: Tensor
    in_domain: Tensor

    def __len__(self) -> int:
        return len(self.readable)


@dataclass(frozen=True)
class NetworkSpec:
    """What it takes to build the networks of a model and to name their outputs.

    Attributes:
        encoder: the backbone, an entry of the catalog.
        head: the head.
        cut: stage from which on the backbone counts as head, or None.
        standardise: whether the head reads standardised features.
        target_names: (t,), of the outputs.
        objective: what the outputs mean.
        classes: (t,), of a classification the names of the labels 0 and 1 of each target; empty for
            "0" and "1".
    """

    encoder: Choice
    head: Choice
    cut: str | None
    standardise: bool
    target_names: tuple[str, ...]
    objective: Multilabel | Squared
    classes: tuple[tuple[str, str], ...] = ()

    @property
    def value_names(self) -> tuple[str, ...]:
        """(t,), the target, and the class whose probability is predicted where that is not "1"."""
        if isinstance(self.objective, Squared):
            return self.target_names
        pairs = zip(self.target_names, self.class_names, strict=True)
        return tuple(name if pair == ZERO_ONE else f"{name} p({pair[1]})" for name, pair in pairs)

    @property
    def class_names(self) -> tuple[tuple[str, str], ...]:
        """(t,), `classes` where they are given, else "0" and "1"."""
        return self.classes or (ZERO_ONE,) * len(self.target_names)

    def network(self) -> Network:
        """A network to load weights into."""
        return shaped_network(
            self.encoder,
            self.head,
            self.cut,
            standardise=self.standardise,
            outputs=len(self.target_names),
        )

    def encoder_alone(self) -> Chain:
        """The whole encoder, whatever is cut off it, to load weights into."""
        return shaped_network(
            self.encoder,
            without_beside(self.head),
            None,
            standardise=False,
            outputs=len(self.target_names),
        ).backbone

    def to_json(self) -> Json:
        """What `spec_from` reads; the source of the encoder's weights is left out."""
        objective = self.objective
        encoder = {k: v for k, v in plain(self.encoder.options).items() if k != "weights"}
        scale = (
            {"mean": list(objective.mean), "std": list(objective.std)}
            if isinstance(objective, Squared)
            else {"metric": objective.metric}
        )
        return {
            "encoder": {"name": self.encoder.name, **encoder},
            "head": {"name": self.head.name, **plain(self.head.options)},
            "cut": self.cut,
            "standardise": self.standardise,
            "target_names": list(self.target_names),
            "classes": [list(pair) for pair in self.classes],
            "objective": _KINDS[type(objective)],
            **scale,
        }


def spec_from(config: Json) -> NetworkSpec:
    """The inverse of `NetworkSpec.to_json`.

    Raises:
        ValueError: this version has no such encoder or head.
        KeyError: a key is missing.
    """
    objective: Multilabel | Squared
    if config["objective"] == "regression":
        objective = Squared(mean=tuple(config["mean"]), std=tuple(config["std"]))
    else:
        objective = Multilabel(metric=config["metric"])
    return NetworkSpec(
        checked_choice("encoder", config["encoder"]),
        checked_choice("head", config["head"]),
        config["cut"],
        config["standardise"],
        tuple(config["target_names"]),
        objective,
        tuple((zero, one) for zero, one in config["classes"]),
    )


class Model:
    """Members whose logits are averaged by weights, with their uncertainty.

    >>> model = Model.from_pretrained("models/tox21")  # doctest: +SKIP
    >>> model.predict(["CCO"]).values  # doctest: +SKIP

    Args:
        spec: of the networks; of a model without any, those that would have been trained.
        networks: finetuned ones.
        uncertainty: calibration, prediction sets and applicability domain.
        training_smiles: the molecules of the training split that have a label.
        about: how the model was made and what it scored, for people: JSON.
        kernel_models: beside the networks, if any.
        weights: of the networks, then of the kernel models; they sum to 1. None weighs all alike.
        lines: from what each of them says to logits; None where that is what they say.
        sizes: numbers of members that began alike (`candidate_std`), in the same order; None for
            1 each.
        held_out: what it says of molecules of its table that members did not train on; None of a
            model that was read from a folder, which does not hold it.

    Raises:
        ValueError: there is no member, or not a weight and a line for each, or sizes are of others.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        networks: Sequence[Network],
        uncertainty: Uncertainty,
        training_smiles: tuple[str, ...],
        about: Json,
        *,
        kernel_models: KernelModels | None = None,
        weights: Sequence[float] | None = None,
        lines: Sequence[Line] | None = None,
        sizes: Sequence[int] | None = None,
        held_out: HeldOutPredictions | None = None,
    ) -> None:
        count = len(networks) + (len(kernel_models.models) if kernel_models else 0)
        if not count or any(
            given is not None and len(given) != count for given in (weights, lines)
        ):
            raise ValueError(
                f"a model needs members, and a weight and a line for each, got {count} members"
            )
        self.spec = spec
        self.networks = tuple(network.eval() for network in networks)
        self.kernel_models = kernel_models
        self.weights = torch.tensor(weights or [1 / count] * count, dtype=torch.float64)
        t = len(spec.target_names)
        lines = lines or [Line.unchanged(t)] * count
        self.slopes = torch.stack([line.slope for line in lines])
        self.offsets = torch.stack([line.offset for line in lines])
        self.sizes = tuple(sizes or [1] * count)
        if sum(self.sizes) != count:
            raise ValueError(f"sizes of a model should sum to its {count} members, got {sizes}")
        self.uncertainty = uncertainty
        self.training_smiles = training_smiles
        self.about = about
        self.held_out = held_out

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        own = (parameter for network in self.networks for parameter in network.parameters())
        return next((parameter.device for parameter in own), torch.device("cpu"))

    @property
    def width(self) -> int:
        """Number of `features`."""
        return sum(backbone.width for backbone in self._backbones)

    @property
    def _backbones(self) -> list[Chain]:
        """Those of the networks, or without any that of the frozen encoder."""
        if self.networks:
            return [network.backbone for network in self.networks]
        frozen = self.kernel_models.describer.backbone if self.kernel_models else None
        return [] if frozen is None else [frozen]

    @property
    def beside(self) -> tuple[Reading, ...]:
        """What its networks read beside features; stores of molecules have to hold it."""
        return beside_of(self.spec.head) if self.networks else ()

    @property
    def reads_encoder(self) -> bool:
        """Whether a member reads the features of an encoder, finetuned or frozen."""
        kernels = self.kernel_models
        return bool(self.networks) or (
            kernels is not None and kernels.describer.backbone is not None
        )

    @property
    def further(self) -> tuple[Reading, ...]:
        """What it reads of molecules beside their graphs and circular neighbourhoods."""
        by_kernels = self.kernel_models.describer.further if self.kernel_models else ()
        kinds = dict.fromkeys((*by_kernels, *self.beside))
        return tuple(kind for kind in kinds if kind != "morgan")

    def predict(self, smiles: Sequence[str]) -> Prediction:
        """Predictions for n molecules, all of them in memory at a time."""
        return self.predict_featurized(featurized(smiles, self.further))

    @deterministic_on_gpus()
    def predict_featurized(
        self, molecules: Featurized, neighbours: tuple[Tensor, Tensor] | None = None
    ) -> Prediction:
        """`predict` for molecules that were read before.

        Args:
            molecules: n of them, with what is `further` read.
            neighbours: similarity to and index of the nearest training molecule, if known.
        """
        store = store_beside(molecules, self.beside)
        rows = store.readable.nonzero().flatten()
        logits = self.logits(store, rows, molecules.columns)
        mean, objective = weighted_mean(logits, self.weights), self.spec.objective
        members = torch.stack([self.uncertainty.values(member, objective) for member in logits])
        similarity, nearest = neighbours or self.uncertainty.neighbours.nearest(
            unpack_bits(molecules.fingerprints)
        )
        std = candidate_std(logits, self.weights, self.sizes)
        sets = self.uncertainty.sets(mean, objective, similarity[rows], std)
        return Prediction(
            readable=store.readable,
            values=scattered(self.uncertainty.values(mean, objective), rows, len(store)),
            std=scattered(weighted_std(members, self.weights), rows, len(store)),
            sets=scattered(sets, rows, len(store)),
            similarity=similarity.where(store.readable, torch.nan),
            nearest=nearest.where(store.readable, -1),
            in_domain=(similarity >= self.uncertainty.domain_threshold) & store.readable,
        )

    def logits(
        self, store: GraphStore, rows: Tensor, columns: Mapping[Reading, NDArray[Any]]
    ) -> Tensor:
        """Logits of each of k members for m molecules, float32 (k, m, t) on the CPU.

        Args:
            store: molecules.
            rows: of those that are predicted, int64 (m,).
            columns: what was read of all molecules of the store, with what is `further` read.
        """
        outputs = self._network_outputs(store, rows)
        if self.kernel_models is not None:
            outputs = torch.cat([outputs, self.kernel_models.outputs(store, rows, columns)])
        return outputs * self.slopes[:, None] + self.offsets[:, None]

    def _network_outputs(self, store: GraphStore, rows: Tensor) -> Tensor:
        k, t = len(self.networks), len(self.spec.target_names)
        if not k or not len(rows):
            return torch.empty(k, len(rows), t)
        with ExitStack() as stack:
            for network in self.networks:
                stack.enter_context(inference(network))
            parts = [
                torch.stack([network(batch) for network in self.networks]).float().cpu()
                for batch in unlabelled_batches(store, rows, self.device)
            ]
        return torch.cat(parts, dim=1)

    def features(self, store: GraphStore, rows: Tensor) -> Tensor:
        """Features of m molecules, those of all networks side by side, float32 (m, k * d).

        Of a model without networks they are those of its frozen encoder.

        Raises:
            ValueError: it has none, for it reads fingerprints alone.
        """
        if not self._backbones:
            raise ValueError(
                "this model reads fingerprints alone and has no features of an encoder; embed by "
                f"an encoder without a model: --encoder {DEFAULT_ENCODER}, in Python "
                f"MoleculeEncoder({DEFAULT_ENCODER!r})"
            )
        return backbone_features(self._backbones, store, rows)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config, weights and card into a folder, over files of these names.

        Raises:
            OSError: the folder cannot be written to.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        spec, path = self.spec.to_json(), folder / WEIGHTS
        source = {
            "encoder": self.spec.encoder.name,
            "task": self.about["task"],
            "config": {key: spec[key] for key in ("encoder", "head", "cut", "standardise")},
        }  # with it the file is one of this package's weight files, to finetune further from
        try:
            save_tensors(self._tensors(), path, metadata={ABOUT: json.dumps(source)})
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error
        config = {
            "format": FORMAT,
            "molhpft": __version__,
            "sha256": digest(path),
            "members": len(self.networks),
            "kernel_models": self.kernel_models.to_json() if self.kernel_models else [],
            "weights": self.weights.tolist(),
            "sizes": list(self.sizes),
            "network": spec,
            "uncertainty": self.uncertainty.to_json(),
            "about": self.about,
        }
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / CARD).write_text(model_card(self), encoding="utf-8")

    def _tensors(self) -> dict[str, Tensor]:
        members = {
            f"{MEMBER.format(k)}{name}": tensor.detach().cpu().contiguous()
            for k, network in enumerate(self.networks)
            for name, tensor in network.state_dict().items()
        }
        kernels = self.kernel_models.to_tensors() if self.kernel_models else {}
        fitted = self.uncertainty.to_tensors().items()
        # JSON: a SMILES with its name behind it may hold a line break
        smiles = bytearray(json.dumps(self.training_smiles).encode())
        return {
            **members,
            **{f"{_KERNELS}{name}": tensor.contiguous() for name, tensor in kernels.items()},
            **{f"{_UNCERTAINTY}{name}": tensor.contiguous() for name, tensor in fitted},
            _SLOPES: self.slopes,
            _OFFSETS: self.offsets,
            _SMILES: torch.frombuffer(smiles, dtype=torch.uint8),
        }

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **unknown: Any,
    ) -> "Model":
        """The model in a folder, or else on the hub under that name.

        Args:
            name: of a folder, or `owner/name`; the options are for the latter only.
            revision: branch, tag or commit on the hub.
            token: for the hub; False for none, True or None for the one that is stored.
            cache_dir: where models of the hub are kept.
            force_download: whether to fetch again what is kept.
            local_files_only: whether to take what is kept and not ask the hub.
            unknown: refused.

        Raises:
            FileNotFoundError: neither has a model, or the hub cannot be reached.
            MissingExtraError: there is no such folder, and huggingface_hub is not installed.
            ValueError: the model is damaged or of another version, or has no such option.
        """
        options = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
        }
        if unknown:
            raise ValueError(
                f"options to load a model with should be of {listed(options)}, got "
                f"{listed(unknown)}"
            )
        folder = Path(name)
        if folder.is_file():
            raise FileNotFoundError(
                f"{folder} is a file and no model; give the folder that molhpft finetune wrote "
                "(its --out), or owner/name of a model on the hub"
            )
        if not folder.is_dir():
            return _read(hub_folder(str(name), **options))
        given = [key for key, option in options.items() if option not in (None, False)]
        if given:
            raise ValueError(
                f"the model in the folder {folder} has no options to load it with, got "
                f"{listed(given)}; they are for the hub"
            )
        return _read(folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = COMMIT_MESSAGE,
    ) -> str:
        """Upload the model to the hub; gives the address of the commit.

        Raises:
            MissingExtraError: huggingface_hub is not installed.
        """
        api = require("huggingface_hub", extra="hub").HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=commit_message
            )
        return str(commit)


def _read(folder: Path) -> Model:
    config = _read_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no whole model: {WEIGHTS} is missing")
    if digest(path) != config["sha256"]:
        raise ValueError(
            f"{path} is not the file that {folder / CONFIG} was written for (their SHA-256 "
            "differ): it is damaged or was exchanged; fetch or make the model again"
        )
    try:
        tensors, spec = load_file(path), spec_from(config["network"])
        networks = [spec.network() for _ in range(config["members"])]
        for k, network in enumerate(networks):
            network.load_state_dict(strip_prefix(tensors, MEMBER.format(k)))
        return Model(
            kernel_models=_kernel_models(tensors, spec, config["kernel_models"]),
            weights=config["weights"],
            lines=[Line(*line) for line in zip(tensors[_SLOPES], tensors[_OFFSETS], strict=True)],
            sizes=config["sizes"],
            spec=spec,
            networks=networks,
            uncertainty=uncertainty_from(
                strip_prefix(tensors, _UNCERTAINTY), config["uncertainty"]
            ),
            training_smiles=tuple(json.loads(tensors[_SMILES].numpy().tobytes())),
            about=config["about"],
        )
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{folder} is no model that this version reads ({' '.join(str(error).split()):.200})"
        ) from error


def _kernel_models(
    tensors: Mapping[str, Tensor], spec: NetworkSpec, models: Sequence[Json]
) -> KernelModels | None:
    """The kernel models of a model's file; None where it has none."""
    if not models:
        return None
    own = strip_prefix(tensors, _KERNELS)
    return kernel_models_from(own, models, ending_standardised(spec.encoder_alone()))


def _read_config(folder: Path) -> Json:
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no model: {CONFIG} is missing; `molhpft finetune` makes such folders"
        )
    config = read_json(path, remedy="make the model again, in another folder")
    kinds = {"format": int, "sha256": str}
    if not isinstance(config, dict) or any(
        not isinstance(config.get(key), kind) for key, kind in kinds.items()
    ):
        raise ValueError(f"{path} is not the config of a molhpft model")
    if config["format"] > FORMAT:
        raise ValueError(
            f"{folder} was written by molhpft {config.get('molhpft')}, this is {__version__}: "
            "update molhpft to read it"
        )
    if config["format"] < FORMAT:
        raise ValueError(
            f"{folder} was written by molhpft {config.get('molhpft')}, whose models this version "
            "does not read; make the model again, in another folder"
        )
    return config
