"""Where data lies and where derived files may be kept."""

import os
from pathlib import Path


def data_folder() -> Path:
    """Folder that holds data sets: `MOLHPFT_DATA`, or `~/.cache/molhpft`."""
    return Path(os.environ.get("MOLHPFT_DATA") or _HOME_CACHE).expanduser()


def cache_folder() -> Path:
    """Folder for derived files, safe to delete: `MOLHPFT_CACHE`, or `~/.cache/molhpft`."""
    return Path(os.environ.get("MOLHPFT_CACHE") or _HOME_CACHE).expanduser()


_HOME_CACHE = "~/.cache/molhpft"
