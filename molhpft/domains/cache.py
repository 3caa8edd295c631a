"""Tensors that are slow to derive and safe to delete, kept on disk between runs."""

import logging
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from molhpft.domains.folders import cache_folder, replacing

_log = logging.getLogger(__name__)


def cached_tensors(key: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `build()` gives, read from `cache_folder()/<key>.safetensors` where that exists.

    The file is written under a temporary name and then renamed, so a killed run leaves no half of
    one. A damaged file is built anew, with a logged warning; where the folder cannot be written,
    another warning says that the tensors live in memory only.

    Args:
        key: folder and digest of everything the tensors depend on, such as "nci/3f2a...".
        build: gives the tensors by name; called only when the file is absent or damaged.
    """
    path = cache_folder() / f"{key}.safetensors"
    if path.is_file():
        try:
            return load_file(path)
        except SafetensorError as error:
            _log.warning("cache file %s is damaged (%s); it is built anew", path, error)
    tensors = {name: tensor.contiguous() for name, tensor in build().items()}
    try:
        _write(tensors, path)
    except (OSError, SafetensorError) as error:
        _log.warning("%s is not kept, the cache folder cannot be used: %s", path.name, error)
    return tensors


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        save_file(tensors, aside)
