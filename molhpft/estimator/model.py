"""A fitted model: an ensemble of networks, what it was trained on and how far to trust it.

What the networks of a model are: enough to build them and put their weights into.

A model as a folder: config.json, model.safetensors and a card. Nothing in it is unpickled.

The card of a model: what it is, what it scored, how to use it, what to know before sharing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from huggingface_hub import ModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from molhpft import __version__
from molhpft.config.build import shaped_network
from molhpft.config.schema import Choice, checked_choice, plain
from molhpft.core.evaluate import EVALUATION_SIZE, inference
from molhpft.core.network import Batch, Network
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.files import NAMED, Json, digest, listed
from molhpft.domains.molecules.examples import ZERO_ONE
from molhpft.domains.molecules.fingerprints import Featurized, featurized, unpack_bits
from molhpft.domains.molecules.graphs import GraphStore, graph_store
from molhpft.domains.weights import ABOUT, FILES, MEMBER, hub_folder, strip_prefix
from molhpft.estimator.confidence import Prediction, Trust, trust_from


@dataclass(frozen=True)
class Shape:
    """What the networks of a model are.

    Attributes:
        encoder: the backbone's entry of the catalog.
        head: the head's.
        cut: stage from which on the backbone counts as head, or None.
        targets: (t,), what each output is called.
        objective: what the outputs mean.
        classes: (t,), of a classification what the labels 0 and 1 of each target are called; empty
            where they are called so.
    """

    encoder: Choice
    head: Choice
    cut: str | None
    targets: tuple[str, ...]
    objective: Multilabel | Squared
    classes: tuple[tuple[str, str], ...] = ()

    @property
    def value_names(self) -> tuple[str, ...]:
        """(t,), what is predicted: a target, and whose probability where that is not 1's."""
        named = self.classes or (ZERO_ONE,) * len(self.targets)
        if isinstance(self.objective, Squared):
            return self.targets
        pairs = zip(self.targets, named, strict=True)
        return tuple(name if pair == ZERO_ONE else f"{name} p({pair[1]})" for name, pair in pairs)

    def network(self) -> Network:
        """A network of this shape, to load weights into."""
        return shaped_network(self.encoder, self.head, self.cut, outputs=len(self.targets))

    def to_json(self) -> Json:
        """All of it but where the encoder's weights came from, for a file and `shape_from`."""
        own = {"encoder": self.encoder, "head": self.head}
        choices = {key: {"name": c.name, **plain(c.options)} for key, c in own.items()}
        del choices["encoder"]["weights"]
        about: Json = {"cut": self.cut, "targets": list(self.targets)}
        if self.classes:
            about["classes"] = [list(pair) for pair in self.classes]
        return {**choices, **about, "objective": _KINDS[type(self.objective)], **_numbers(self)}


def shape_from(found: Json) -> Shape:
    """What gave this `to_json`.

    Raises:
        ValueError: an encoder or head that this version does not know.
        KeyError: something is missing.
    """
    own: Any = {"classification": Multilabel, "regression": Squared}[found["objective"]]
    numbers = {key: found[key] for key in ("metric", "mean", "std") if key in found}
    scale = {key: tuple(v) if isinstance(v, list) else v for key, v in numbers.items()}
    return Shape(
        checked_choice("encoder", found["encoder"]),
        checked_choice("head", found["head"]),
        found["cut"],
        tuple(found["targets"]),
        own(**scale),
        tuple((zero, one) for zero, one in found.get("classes", ())),
    )


def _numbers(shape: Shape) -> Json:
    objective = shape.objective
    if isinstance(objective, Squared):
        return {"mean": list(objective.mean), "std": list(objective.std)}
    return {"metric": objective.metric}


_KINDS = {Multilabel: "classification", Squared: "regression"}


_CARD = """---
library_name: molhpft
tags: [chemistry, molecules, graph-neural-network, transfer-learning]
---

# {task}

Predicts {kind} of {targets} from SMILES: molhpft's encoder `{encoder}` ({weights}), finetuned by
`{method}` after probing its head for tau epochs. Members of the ensemble: tau {taus}.

```python
from molhpft.estimator.model import Model

prediction = Model.from_pretrained("folder, or name on the hub").predict(["CCO"])
```

{scores}

A molecule less similar than {near:.2f} (Tanimoto, Morgan fingerprints) to
all of the {molecules:,} training molecules is outside the applicability domain. The training
molecules are part of the weight file: do not share a model whose molecules are secret.
{notes}"""
NAMES = {
    "rocauc": "ROC-AUC",
    "ap": "average precision",
    "ece_before": "calibration error before calibration",
    "ece": "calibration error",
    "in_domain": "molecules within the domain",
    "coverage": "coverage, within the domain",
    "set_size": "mean set size, within the domain",
    "rmse": "RMSE",
    "mae": "MAE",
    "spearman": "Spearman's correlation",
    "width": "width of the intervals, within the domain",
}


def model_card(shape: Shape, trust: Trust, about: Json, molecules: int) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        shape: of the model.
        trust: of the model.
        about: what training has written down.
        molecules: number of training molecules.
    """
    return _CARD.format(
        task=about["task"],
        kind="numbers" if isinstance(shape.objective, Squared) else "probabilities",
        targets=listed([f"`{name}`" for name in shape.value_names], most=NAMED),
        encoder=shape.encoder.name,
        weights=about["encoder_weights"],
        method=about["method"],
        taus=", ".join(str(member["tau"]) for member in about["members"]),
        scores=_scores(about["scores"]),
        near=trust.near,
        molecules=molecules,
        notes="".join(f"\n{note}\n" for note in (*about["promise"], *about["notes"])),
    )


def _scores(scores: Json) -> str:
    """A table with a line a number and a column a split."""
    splits = list(scores)
    names = list(dict.fromkeys(name for found in scores.values() for name in found))
    rows = [["", *splits], ["---", *["---:"] * len(splits)]]
    for name in names:
        rows.append([NAMES[name], *(score_text(scores[split].get(name)) for split in splits)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def score_text(value: float | None) -> str:
    """A number of `evaluated` as text."""
    return "-" if value is None else f"{value:.4f}"


CONFIG, WEIGHTS, CARD = FILES
# raised when a folder is written so that other versions cannot read it, or would misread it
FORMAT = 2

_TRUST, _SMILES = "trust.", "training_smiles"


class Parts(TypedDict):
    """What a model is made of; see `Model`."""

    shape: Shape
    networks: Sequence[Network]
    trust: Trust
    training_smiles: tuple[str, ...]
    about: Json


def write_parts(parts: Parts, folder: Path) -> None:
    """Write a model into a folder that exists; files of those names are replaced.

    Raises:
        OSError: the folder cannot be written to.
    """
    tensors = {
        f"{MEMBER.format(k)}{name}": tensor.detach().cpu().contiguous()
        for k, network in enumerate(parts["networks"])
        for name, tensor in network.state_dict().items()
    }
    tensors |= {f"{_TRUST}{k}": t.contiguous() for k, t in parts["trust"].tensors().items()}
    # JSON: a SMILES with its name behind it may hold a line break
    text = json.dumps(parts["training_smiles"]).encode()
    tensors[_SMILES] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    try:
        save_file(tensors, folder / WEIGHTS, metadata={ABOUT: json.dumps(_origin(parts))})
    except SafetensorError as error:
        raise OSError(f"cannot write {folder / WEIGHTS}: {error}") from error
    config = {
        "format": FORMAT,
        "molhpft": __version__,
        "sha256": digest(folder / WEIGHTS),
        "members": len(parts["networks"]),
        "network": parts["shape"].to_json(),
        "answers": parts["trust"].about(),
        "made": parts["about"],
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    card = model_card(parts["shape"], parts["trust"], parts["about"], len(parts["training_smiles"]))
    (folder / CARD).write_text(card, encoding="utf-8")


def read_parts(folder: Path) -> Parts:
    """What `write_parts` wrote.

    Raises:
        FileNotFoundError: the folder holds no model.
        ValueError: a file is damaged, of a newer version, or belongs to another model.
    """
    config = _config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no whole model: {WEIGHTS} is missing")
    if digest(path) != config["sha256"]:
        raise ValueError(
            f"{path} is not the file that {folder / CONFIG} was written for (their SHA-256 "
            "differ): it is damaged or was exchanged; fetch or make the model again"
        )
    try:
        tensors, shape = load_file(path), shape_from(config["network"])
        networks = [_network(shape, tensors, k) for k in range(config["members"])]
        return Parts(
            shape=shape,
            networks=networks,
            trust=trust_from(strip_prefix(tensors, _TRUST), config["answers"]),
            training_smiles=tuple(json.loads(tensors[_SMILES].numpy().tobytes())),
            about=config["made"],
        )
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{folder} is no model that this version reads ({' '.join(str(error).split()):.200})"
        ) from error


def _origin(parts: Parts) -> Json:
    """What makes the file one of this package's weight files, to finetune further from."""
    shape = parts["shape"].to_json()
    config = {"encoder": shape["encoder"], "head": shape["head"], "cut": shape["cut"]}
    return {"encoder": shape["encoder"]["name"], "task": parts["about"]["task"], "config": config}


def _config(folder: Path) -> Json:
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no model: {CONFIG} is missing; `molhpft finetune` makes such folders"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    config: Json = found if isinstance(found, dict) else {}
    if not isinstance(config.get("format"), int) or not isinstance(config.get("sha256"), str):
        raise ValueError(f"{path} is not the config of a molhpft model")
    if config["format"] > FORMAT:
        raise ValueError(
            f"{folder} was written by molhpft {config.get('molhpft')}, this is {__version__}: "
            "update molhpft to read it"
        )
    if config["format"] < FORMAT:
        raise ValueError(
            f"{folder} was written by an older version of molhpft, whose prediction sets promise "
            "more than they hold; make the model again with this one"
        )
    return config


def _network(shape: Shape, tensors: Mapping[str, Tensor], k: int) -> Network:
    network = shape.network()
    network.load_state_dict(strip_prefix(tensors, MEMBER.format(k)))
    return network


class Model(
    ModelHubMixin,
    library_name="molhpft",
    license="mit",
    tags=["chemistry", "molecules", "graph-neural-network", "transfer-learning"],
):
    """Networks that answer together for molecules they have not seen.

    `save_pretrained`, `from_pretrained` and `push_to_hub` are those of huggingface_hub; a folder
    works offline.

    Args:
        shape: of the networks.
        networks: the members of the ensemble, which are averaged; the best validating one first.
        trust: calibration, sets and nearness.
        training_smiles: the molecules of the training split.
        about: how the model was made and what it scored, for people: JSON.
    """

    def __new__(cls, *_: Any, **__: Any) -> "Model":  # noqa: D102 - as any class
        # the mixin's own would copy all arguments into a config, which ours writes itself
        return object.__new__(cls)

    def __init__(
        self,
        shape: Shape,
        networks: Sequence[Network],
        trust: Trust,
        training_smiles: tuple[str, ...],
        about: Json,
    ) -> None:
        self.shape = shape
        self.networks = tuple(network.eval() for network in networks)
        self.trust = trust
        self.training_smiles = training_smiles
        self.about = about

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.networks[0].parameters()).device

    def predict(self, smiles: Sequence[str]) -> Prediction:
        """Answers for n molecules, row i for string i; all are in memory at a time."""
        return self.answers(featurized(smiles))

    def answers(
        self, molecules: Featurized, near: tuple[Tensor, Tensor] | None = None
    ) -> Prediction:
        """`predict` for molecules that are featurized already.

        Args:
            molecules: n of them.
            near: similarity to and number of the nearest training molecule, where they are known.
        """
        store = graph_store(molecules.graphs)
        rows = store.readable.nonzero().flatten()
        logits = self.logits(store, rows)
        together, objective = logits.mean(0), self.shape.objective
        one_by_one = torch.stack([self.trust.values(member, objective) for member in logits])
        similarity, nearest = near or self.trust.neighbours.nearest(
            unpack_bits(molecules.fingerprints)
        )
        return Prediction(
            readable=store.readable,
            values=_spread_out(self.trust.values(together, objective), rows, len(store)),
            spread=_spread_out(_deviation(one_by_one), rows, len(store)),
            sets=_spread_out(
                self.trust.sets(together, objective, similarity[rows]), rows, len(store)
            ),
            similarity=similarity.where(store.readable, torch.nan),
            nearest=nearest,
            in_domain=(similarity >= self.trust.near) & store.readable,
        )

    def logits(self, store: GraphStore, rows: Tensor) -> Tensor:
        """What each of k members says of m molecules, float32 (k, m, t) on the CPU."""
        with _all_in_eval_mode(self.networks):
            pieces = [
                torch.stack([network(batch) for network in self.networks]).float().cpu()
                for batch in self._batches(store, rows)
            ]
        empty = torch.empty(len(self.networks), 0, len(self.shape.targets))
        return torch.cat([empty, *pieces], dim=1)

    def features(self, store: GraphStore, rows: Tensor) -> Tensor:
        """Features of m molecules, those of all members side by side, float32 (m, k * d)."""
        with _all_in_eval_mode(self.networks):
            pieces = [
                torch.cat([network.features(batch) for network in self.networks], dim=1).cpu()
                for batch in self._batches(store, rows)
            ]
        return torch.cat(pieces) if pieces else torch.empty(0, self.width)

    @property
    def width(self) -> int:
        """Length of `features`."""
        return sum(network.backbone.width for network in self.networks)

    def _batches(self, store: GraphStore, rows: Tensor) -> Iterator[Batch]:
        for some in torch.split(rows, EVALUATION_SIZE):
            inputs = store.take(some).to(self.device)
            yield Batch(inputs, torch.empty(len(some), 0, device=self.device))

    def _save_pretrained(self, save_directory: Path) -> None:
        parts = Parts(
            shape=self.shape,
            networks=self.networks,
            trust=self.trust,
            training_smiles=self.training_smiles,
            about=self.about,
        )
        write_parts(parts, save_directory)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> "Model":
        """The model in a folder, or else on the hub under a name; see huggingface_hub.

        Args:
            pretrained_model_name_or_path: of the folder, or `owner/name`.
            force_download: whether to fetch again what the cache has.
            token: for the hub.
            cache_dir: where the hub's files are kept.
            local_files_only: whether to leave the hub alone.
            revision: branch, tag or commit on the hub.
            model_kwargs: none; a model has no options.

        Raises:
            FileNotFoundError: neither has a model, or the hub cannot be reached.
            ValueError: the model is damaged or of a newer version, or an option is not known.
        """
        if model_kwargs:
            raise ValueError(f"a model has no options to load it with, got {list(model_kwargs)}")
        # not the mixin's, which would read a folder's config.json by itself and trip over a bad one
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = hub_folder(
                str(pretrained_model_name_or_path),
                force_download=force_download,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                revision=revision,
            )
        return cls(**read_parts(folder))


@contextmanager
def _all_in_eval_mode(networks: Sequence[Network]) -> Iterator[None]:
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(inference(network))
        yield


def _deviation(members: Tensor) -> Tensor:
    """Standard deviation over the first axis; `Tensor.std` warns where the others are empty."""
    return (members - members.mean(0)).square().mean(0).sqrt()


def _spread_out(found: Tensor, rows: Tensor, n: int) -> Tensor:
    """Rows of n molecules, of which those not in `rows` have no answer."""
    nothing = False if found.dtype == torch.bool else torch.nan
    whole = torch.full((n, *found.shape[1:]), nothing, dtype=found.dtype)
    whole[rows] = found
    return whole
