"""Which files a finished run consists of: a list that is written last, so that a copy can be told.

A run folder here and its copy at a URL are complete by the same rule: the list is there, and every
file on it is there in its size.
"""

import json
from collections.abc import Mapping
from pathlib import Path

MANIFEST = "manifest.json"


def file_sizes(folder: Path) -> dict[str, int]:
    """Every file below a folder, by its path from there ("members/tau4.safetensors"), in bytes."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def manifest_of(sizes: Mapping[str, int]) -> str:
    """The list of a run's files, as the text that the run folder holds."""
    files = {name: size for name, size in sizes.items() if name != MANIFEST}
    return json.dumps({"files": files}, indent=2) + "\n"


def lacking(text: str | bytes | None, sizes: Mapping[str, int]) -> list[str]:
    """Names of the files that a run folder lacks, or has in another size; empty for a whole one.

    Args:
        text: what `manifest.json` holds; None where there is none.
        sizes: of the files that are there.
    """
    try:
        files = json.loads(text or "")["files"]
        return [name for name, size in files.items() if sizes.get(name) != size]
    except (ValueError, TypeError, KeyError, AttributeError):  # cut short, or of something else
        return [MANIFEST]
