"""A model as a folder: config.json, model.safetensors and a card. Nothing in it is unpickled."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from molhpft import __version__
from molhpft.core.network import Network
from molhpft.domains.hub import FILES
from molhpft.domains.weights import ABOUT, MEMBER
from molhpft.estimator.card import model_card
from molhpft.estimator.shape import Shape, shape_from
from molhpft.estimator.trust import Trust, trust_from
from molhpft.experiments.folder import Json

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
        "sha256": _digest(folder / WEIGHTS),
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
    if _digest(path) != config["sha256"]:
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
            trust=trust_from(_under(tensors, _TRUST), config["answers"]),
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
    network.load_state_dict(_under(tensors, MEMBER.format(k)))
    return network


def _under(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
