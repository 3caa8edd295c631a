"""Weight files, ours and those of others, read without ever running code from them.

The client of the Hugging Face hub is imported where it is used: it takes half as long as a command.
"""

import json
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from molhpft.core import beside, standardise
from molhpft.domains.extras import MissingExtraError, require
from molhpft.domains.files import digest
from molhpft.domains.shipped import shipped_card, shipped_encoders, shipped_file

T = TypeVar("T")

MODEL = "model.safetensors"
"""The weight file in the folder of a run or a model."""

CARD = "README.md"
FILES = ("config.json", MODEL, CARD)
"""What a model of this package is, in a folder and on the hub."""

ABOUT = "molhpft"
"""Key of the JSON text that this package stores beside the tensors of its own files."""

MEMBER = "member{}."
"""What the names of a network's tensors begin with in a model of several networks."""

HUB = "hub:"
"""What the name of a model on the hub begins with where a path could stand."""

_LIBRARY = "molhpft"
_WRAPPERS = ("state_dict", "model_state_dict", "online_network_state_dict", "model", "net")
_COMPILED = "_orig_mod."
_COPIES = {"k", "target", "momentum", "teacher", "ema"}


@dataclass(frozen=True)
class WeightFile:
    """What a weight file holds.

    Attributes:
        path: where it was read.
        tensors: name to tensor, on the CPU.
        about: what this package wrote about its own file; empty for those of others.
        digest: SHA-256 of the file, in hexadecimal; empty for weights that are in none.
        settings: what others wrote as `hyper_parameters` beside the tensors; of an object, the name
            of its class.
    """

    path: Path
    tensors: dict[str, Tensor]
    about: dict[str, Any]
    digest: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def strip_prefix(named: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The entries whose names begin with a prefix, under their names without it.

    >>> strip_prefix({"head.w": 1, "head.b": 2, "norm.w": 3}, "head.")
    {'w': 1, 'b': 2}
    """
    return {n.removeprefix(prefix): value for n, value in named.items() if n.startswith(prefix)}


def backbone_weights(file: WeightFile, prefix: str) -> dict[str, Tensor]:
    """Weights of the encoder in one of our files, without what a run has put on top of it.

    Args:
        file: one of ours.
        prefix: what its names of the backbone begin with.
    """
    stages = strip_prefix(file.tensors, prefix)
    added = tuple(f"stages.{stage}." for stage in (standardise.STAGE, beside.STAGE))
    return {n: t for n, t in stages.items() if not n.startswith(added)}


def hub_folder(name: str, **options: Any) -> Path:
    """Folder with the files of the model that the hub has under a name.

    Args:
        name: `owner/name`.
        options: of huggingface_hub's `snapshot_download`.

    Raises:
        FileNotFoundError: the hub has none, or cannot be reached.
        MissingExtraError: huggingface_hub is not installed; the message begins with the folder.
    """
    owner, _, rest = name.partition("/")
    if not owner or not rest or "/" in rest:
        raise FileNotFoundError(f"no folder at {name!r}; a model on the hub is called owner/name")
    try:
        snapshot_download = require("huggingface_hub", extra="hub").snapshot_download
    except MissingExtraError as error:
        raise MissingExtraError(
            f"no folder at {name!r}; to look for it on the model hub, {error}", name=error.name
        ) from error
    invalid = require("huggingface_hub.errors", extra="hub").HFValidationError
    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES), **options))
    except (OSError, invalid) as error:
        raise FileNotFoundError(
            f"no folder at {name!r}, and none from the model hub: {_one_line(error)}"
        ) from error


def hub_names() -> list[str]:
    """Names of the models of this package on the hub.

    Raises:
        FileNotFoundError: the hub cannot be reached.
    """
    api = require("huggingface_hub", extra="hub").HfApi()
    try:
        return sorted(model.id for model in api.list_models(filter=_LIBRARY))
    except Exception as error:
        # the errors are those of an HTTP library, which the hub's client has exchanged before
        raise FileNotFoundError(f"the model hub cannot be reached: {_one_line(error)}") from error


def cached_names() -> list[str]:
    """Names of the models that an earlier use has fetched; they load offline."""
    try:
        scan_cache_dir = require("huggingface_hub", extra="hub").scan_cache_dir
    except MissingExtraError:
        return []  # whose client would have fetched them
    try:
        repos = scan_cache_dir().repos
    except require("huggingface_hub.errors", extra="hub").CacheNotFound:
        return []
    return sorted(
        repo.repo_id
        for repo in repos
        for revision in repo.revisions
        if set(FILES) <= {file.file_name for file in revision.files}
    )


def _one_line(error: Exception) -> str:
    return f"{' '.join(str(error).split()):.200}"


def weight_file(given: Path) -> Path:
    """The file that `weights` means.

    One at that path, the weights in a model's folder, a shipped encoder by its name, or a model on
    the hub as `hub:owner/name`.

    Raises:
        FileNotFoundError: the hub has no such model, or cannot be reached; or the encoder is not
            shipped any more.
    """
    if str(given).startswith(HUB):
        given = hub_folder(str(given).removeprefix(HUB))
    if given.is_dir():
        return given / MODEL
    if given.exists():
        return given
    return shipped_file(str(given)) or given


def encoder_name(path: Path) -> str:
    """What people call an encoder: name of its file, or of the run or model whose folder it is in.

    >>> encoder_name(Path("runs/tox21/model.safetensors")), encoder_name(Path("gcn.pth"))
    ('tox21', 'gcn')
    """
    return path.parent.name if path.name == MODEL else path.stem


def read_weights(path: Path) -> WeightFile:
    """Read a safetensors file, or a `.pth` whose only content is tensors.

    A state dict wrapped in a dictionary under a customary name, such as "state_dict", is unwrapped,
    and `_orig_mod.`, which `torch.compile` puts into names, is left out of them. Of the objects
    that chemprop stores beside its tensors, only the names of their classes are read.

    Args:
        path: as in `weight_file`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a weight file, truncated, readable only by unpickling Python objects, or
            with a weight that is not finite.
    """
    path = weight_file(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no weight file at {path}; give the path of one, or the name of a shipped encoder: "
            f"{', '.join(shipped_encoders()) or 'there is none'}"
        )
    with path.open("rb") as file:
        magic = file.read(9)
    sha256 = digest(path)
    _check_digest(path, sha256)
    settings: dict[str, Any] = {}
    if magic[8:9] == b"{":
        tensors, about = _read_safetensors(path)
    elif magic[:2] in (b"PK", b"\x80\x02"):
        loaded = _load_tensors_only(path)
        tensors, about, settings = _state_dict(path, loaded), {}, _settings(loaded)
    else:
        raise ValueError(
            f"{path} is not a weight file ({path.stat().st_size} bytes, neither safetensors nor a "
            "PyTorch archive); give a .safetensors or .pth file"
        )
    tensors = {name.replace(_COMPILED, ""): tensor for name, tensor in tensors.items()}
    odd = next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)
    if odd is not None:
        raise ValueError(
            f"{path} holds weights that are not finite, in {odd}: the training that wrote it has "
            "diverged; give weights of an earlier epoch"
        )
    return WeightFile(path, tensors, about, sha256, settings)


def encoder_prefix(file: WeightFile, landmarks: Sequence[str]) -> str | None:
    """The prefix of the names of a file's encoder, such as `module.` or `model.gnn.`.

    Slowly moving copies of the encoder (momentum encoders, teachers, running averages) do not
    count, and of equal encoders the first does.

    Args:
        file: that may hold an encoder.
        landmarks: names of tensors by which such an encoder is recognised, any one of them.

    Returns:
        "" for bare names, None for a file without such an encoder.

    Raises:
        ValueError: the file holds several encoders that differ.
    """
    marked = {
        name.removesuffix(landmark): tensor
        for landmark in landmarks
        for name, tensor in file.tensors.items()
        if name == landmark or name.endswith(f".{landmark}")
    }
    encoders = {w: t for w, t in marked.items() if not _COPIES & set(re.split(r"[._]", w))}
    if not encoders:
        return None
    first, *others = encoders
    if not all(torch.equal(encoders[first], encoders[other]) for other in others):
        raise ValueError(
            f"{file.path} should hold one encoder; it has: {', '.join(encoders)}: save the state "
            "dict of one of them"
        )
    return first


def _check_digest(path: Path, sha256: str) -> None:
    """Refuse a file that is not the one its card, or the config beside it, was written for."""
    card, config = shipped_card(path), path.with_name("config.json")
    expected = None
    if card is not None:
        expected = re.search(r"sha256: `(\w+)`", card.read_text(encoding="utf-8"))
    elif path.name == MODEL and config.is_file():
        expected = re.search(r'"sha256": "(\w+)"', config.read_text(encoding="utf-8"))
    if expected and sha256 != expected[1]:
        raise ValueError(
            f"{path} has another SHA-256 than is written beside it: it is damaged or was "
            "exchanged; fetch or make it again"
        )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            # of an ensemble, the network that validates best is the first
            first, names = MEMBER.format(0), list(file.keys())
            start = first if any(name.startswith(first) for name in names) else ""
            wanted = strip_prefix({name: name for name in names}, start)
            tensors = {name: file.get_tensor(full) for name, full in wanted.items()}
            return tensors, json.loads((file.metadata() or {}).get(ABOUT, "{}"))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); fetch it again") from error


class _Inert:
    """Stands for an object that is not restored: takes whatever it is given and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "_Inert":
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Leaves the state out."""


def _stand_ins(path: Path) -> list[Any]:
    """Classes that do nothing, in the place of all that a chemprop model's file would call."""
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    if not any(name.startswith("chemprop.") for name in names):
        return []
    return [
        # Lightning's dictionary of hyper-parameters is filled as an ordered one is
        (OrderedDict if kind == "AttributeDict" else type(kind, (_Inert,), {}), name)
        for name in names
        for kind in [name.rpartition(".")[2]]
    ]


def _load_tensors_only(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # torch warns of pickle protocols it may not read; what it cannot read it refuses
            warnings.simplefilter("ignore", UserWarning)
            stand_ins = _stand_ins(path) if zipfile.is_zipfile(path) else []
            with torch.serialization.safe_globals(stand_ins):
                return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds Python objects that only unpickling would restore, which can run code "
            "from the file and is refused; save its weights alone: "
            "torch.save(model.state_dict(), path) (a truncated file can look like this too)"
        ) from error
    except Exception as error:
        # the reader of tensors fails in a different way for each place where a file can end
        raise ValueError(f"{path} is damaged or truncated; fetch it again") from error


def _settings(loaded: Any) -> dict[str, Any]:
    """The hyper-parameters beside a state dict, with objects as the names of their classes."""
    settings = loaded.get("hyper_parameters") if isinstance(loaded, Mapping) else None
    return _plain(settings) if isinstance(settings, Mapping) else {}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return (value if isinstance(value, type) else type(value)).__name__


def _state_dict(path: Path, loaded: Any) -> dict[str, Tensor]:
    while isinstance(loaded, Mapping):
        inside = [loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)]
        if not inside:
            break
        loaded = inside[0]
    if isinstance(loaded, Mapping) and all(isinstance(v, Tensor) for v in loaded.values()):
        return dict(loaded)
    raise ValueError(
        f"{path} holds a {type(loaded).__name__}, not a dictionary of named tensors; "
        "save a state_dict: torch.save(model.state_dict(), path)"
    )
