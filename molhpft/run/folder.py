"""A run folder: written under another name, renamed when complete, so that what is read is whole.

While a run is on its way its folder is called `<name>.partial` and also holds what the run needs to
go on after an interruption. The last file written, `manifest.json`, lists all others: a run folder
or its copy at a URL is complete when each of them is there in its size.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor

from molhpft.domains.files import ASIDE, Json, read_json, replacing, save_tensors, writing
from molhpft.domains.weights import ABOUT

MANIFEST = "manifest.json"
_RESUME = "resume"
"""The folder of what a run goes on from, see `run/resume.py`; no manifest lists it."""


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


@dataclass(frozen=True)
class RunFolder:
    """Files of one run.

    Attributes:
        path: the folder once the run is complete.
        writes: whether this process writes; where several share a run, the first one alone does.
    """

    path: Path
    writes: bool = True

    @property
    def partial(self) -> Path:
        """The folder while the run is on its way."""
        return self.path.with_name(f"{self.path.name}.partial")

    @property
    def is_complete(self) -> bool:
        """Whether the run has ended well and all of it is there; a complete run is never redone."""
        return not self.lacking

    @property
    def lacking(self) -> list[str]:
        """Files of the run that are not there, or not whole; see `lacking`."""
        manifest = self.path / MANIFEST
        text = manifest.read_bytes() if manifest.is_file() else None
        return lacking(text, file_sizes(self.path))

    def open(self) -> None:
        """Make the partial folder, or find the one that an interrupted run left.

        Raises:
            ValueError: a folder of the run's name holds something else.
            OSError: the place cannot be written to.
        """
        if self.path.exists() and (absent := self.lacking):
            raise ValueError(
                f"{self.path} is no complete run (missing, or not in its size: "
                f"{', '.join(absent)}); move it away or delete it, and run again"
            )
        if self.writes:
            with writing(self.partial):
                self.partial.mkdir(parents=True, exist_ok=True)
                for left in self.partial.rglob(f".*{ASIDE}"):  # where a kill broke off a file
                    left.unlink()

    def close(self) -> None:
        """Give the folder its name, then remove `resume/`, which only an unfinished run needs.

        In this order a kill at any point costs nothing: before the folder has its name, a later
        call goes on from `resume/`; afterwards the run is complete, and what is left of `resume/`
        is no part of it and is ignored by later calls.
        """
        if self.writes:
            self._write(MANIFEST, manifest_of(_outside(file_sizes(self.partial), _RESUME)))
            with writing(self.path):
                os.replace(self.partial, self.path)
            rmtree(self.path / _RESUME, ignore_errors=True)

    @contextmanager
    def nothing_left(self) -> Iterator[None]:
        """A block that fails without leaving a partial folder from which nothing goes on.

        Such a folder, with a config at most, would be taken for a run that was interrupted.
        """
        try:
            yield
        except BaseException:  # an interruption, too
            files = (path for path in self.partial.rglob("*") if path.is_file())
            if self.writes and all(path.name == "config.yaml" for path in files):
                rmtree(self.partial, ignore_errors=True)
            raise

    def drop(self, name: str) -> None:
        """Take a folder of files out of the complete run, which is complete without it."""
        rest = _outside(file_sizes(self.path), _RESUME, name)
        with writing(self.path), replacing(self.path / MANIFEST) as aside:
            aside.write_text(manifest_of(rest))
        rmtree(self.path / name, ignore_errors=True)

    def write_yaml(self, name: str, content: Json) -> None:
        """Write a YAML file."""
        self._write(name, yaml.safe_dump(content, sort_keys=False))

    def write_json(self, name: str, content: Json) -> None:
        """Write a JSON file; numbers that JSON does not know become null."""
        self._write(name, json.dumps(finite(content), indent=2, allow_nan=False) + "\n")

    def write_lines(self, name: str, rows: Iterable[Json]) -> None:
        """Write one JSON object a line."""
        self._write(name, "".join(json.dumps(finite(row), allow_nan=False) + "\n" for row in rows))

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], about: Json) -> None:
        """Write a safetensors file with `about` as JSON text beside the tensors."""
        contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        # one entry: safetensors writes several in an order of its own, and bytes should repeat
        entry = {ABOUT: json.dumps(about)}
        self._put(name, lambda path: save_tensors(contiguous, path, metadata=entry))

    def write_arrays(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write a compressed `.npz` file of arrays."""
        arrays: Json = {key: tensor.numpy() for key, tensor in tensors.items()}

        def write(path: Path) -> None:
            with path.open("wb") as file:  # numpy adds .npz to a name, and not to a file
                np.savez_compressed(file, **arrays)

        self._put(name, write)

    def read_json(self, name: str) -> Json:
        """Content of a JSON file of the complete run.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.path / name
        return read_json(path, remedy=f"delete {self.path} and run again")

    def read_lines(self, name: str) -> list[Json]:
        """Rows that `write_lines` wrote into the complete run."""
        text = (self.path / name).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def read_tensors(self, name: str) -> tuple[dict[str, Tensor], Json] | None:
        """What `write_tensors` wrote while the run was on its way; None if it did not.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.partial / name
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()[ABOUT])
                return {key: file.get_tensor(key).clone() for key in file.keys()}, about  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f"{path} is damaged ({error}); delete it, and the run goes on from what is left"
            ) from error

    def read_unfinished(self, name: str) -> Json | None:
        """What `write_json` wrote while the run was on its way; None if it did not.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.partial / name
        return read_json(path, remedy=f"delete {path} and run again") if path.is_file() else None

    def remove(self, name: str) -> None:
        """Remove a file of the unfinished run, if it is there."""
        if self.writes:
            (self.partial / name).unlink(missing_ok=True)

    def _write(self, name: str, text: str) -> None:
        self._put(name, lambda path: path.write_text(text, encoding="utf-8"))

    def _put(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a file beside its place and move it there, whole."""
        if not self.writes:
            return
        path = self.partial / name
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as aside:
                write(aside)


def _outside(sizes: Mapping[str, int], *folders: str) -> dict[str, int]:
    """The files that are in none of some folders."""
    return {name: size for name, size in sizes.items() if name.partition("/")[0] not in folders}


def finite(content: Any) -> Any:
    """The same with null for numbers that JSON does not know: infinite ones and NaN."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
