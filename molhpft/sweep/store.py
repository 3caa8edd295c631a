"""Where a sweep keeps its results: run folders and a record of each trial, here or at a URL."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any, Literal
from uuid import uuid4

from molhpft.config.schema import resolved
from molhpft.domains.extras import require
from molhpft.domains.files import ASIDE, Json, parse_json, replacing, writing
from molhpft.run.folder import MANIFEST, RunFolder, file_sizes, lacking
from molhpft.run.lock import locked
from molhpft.sweep.spec import Trial


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        name: of the trial.
        status: "done"; "failed" for a fault of the trial; "stopped" for one of the place that
            results go to, which would stop every other trial too.
        run: name of the run folder; None without one.
        error: what went wrong; None for nothing.
        seconds: of wall-clock time.
        hardware: that it ran on.
    """

    name: str
    status: Literal["done", "failed", "stopped"]
    run: str | None = None
    error: str | None = None
    seconds: float = 0.0
    hardware: str | None = None


@dataclass(frozen=True)
class Store:
    """A folder on any file system that fsspec knows.

    Attributes:
        fs: the file system.
        root: the folder there.
    """

    fs: Any
    root: str

    @property
    def local(self) -> Path | None:
        """The folder, where it is on this machine or mounted here; None elsewhere."""
        protocols = [self.fs.protocol] if isinstance(self.fs.protocol, str) else self.fs.protocol
        return Path(self.root) if "file" in protocols else None

    @property
    def url(self) -> str:
        """The folder as other machines name it."""
        return str(self.fs.unstrip_protocol(self.root))

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            UnwritableError: it cannot be made.
        """
        with writing(f"{self.root}/trials"):
            self.fs.makedirs(f"{self.root}/trials", exist_ok=True)

    def record(self, trial: Trial) -> Json | None:
        """What was last recorded of a trial; None if nothing was.

        Raises:
            ValueError: the record is damaged.
        """
        return self._read(_record_path(trial))

    def write_record(self, trial: Trial, outcome: Outcome) -> None:
        """Record how a trial ended.

        Raises:
            UnwritableError: the folder cannot be written to.
        """
        record = asdict(outcome) | {"settings": trial.settings, "config": resolved(trial.config)}
        text = json.dumps(record, indent=2, default=str) + "\n"
        path = _record_path(trial)
        with writing(f"{self.root}/{path}"):
            aside = f"{self.root}/trials/.{uuid4().hex}{ASIDE}"
            self.fs.pipe_file(aside, text.encode())
            self.fs.mv(aside, f"{self.root}/{path}")

    def is_complete(self, run: str) -> bool:
        """Whether the run folder is there with every file of its manifest."""
        base = f"{self.root}/{run}"
        self.fs.invalidate_cache()  # another machine may have written since
        sizes = {
            path.removeprefix(f"{base}/"): info["size"]
            for path, info in self.fs.find(base, detail=True).items()
        }
        manifest = self.fs.cat_file(f"{base}/{MANIFEST}") if MANIFEST in sizes else None
        return not lacking(manifest, sizes)

    def summary(self, run: str) -> Json:
        """Summary of a complete run.

        Raises:
            ValueError: it is damaged.
        """
        summary = self._read(f"{run}/summary.json")
        if summary is None:
            raise ValueError(f"{self.root}/{run} is no complete run; sweep again")
        return summary

    def publish(self, folder: Path) -> None:
        """Copy a complete run folder into the store, where no reader sees half of it.

        Raises:
            UnwritableError: the store cannot be written to.
        """
        with writing(f"{self.root}/{folder.name}"):
            if self.local:
                _copy(folder, RunFolder(self.local / folder.name))
            elif not self.is_complete(folder.name):
                # object stores cannot rename a folder: the file that makes a run complete is last
                for name in sorted(file_sizes(folder), key=lambda name: name == MANIFEST):
                    place = f"{self.root}/{folder.name}/{name}"
                    self.fs.makedirs(place.rpartition("/")[0], exist_ok=True)
                    self.fs.put_file(str(folder / name), place)

    def _read(self, name: str) -> Json | None:
        path = f"{self.root}/{name}"
        if not self.fs.isfile(path):
            return None
        remedy = f"delete {path.removesuffix('/summary.json')} and sweep again"
        content = parse_json(self.fs.cat_file(path), path, remedy=remedy)
        if not isinstance(content, dict):
            raise ValueError(f"{path} is damaged: it holds no object; delete it and sweep again")
        return content


def store_at(out: str) -> Store:
    """The store at a path or URL, such as "runs/tox21" or "s3://bucket/tox21".

    Raises:
        ValueError: no installed package knows the URL's protocol.
    """
    url_to_fs = require("fsspec.core", extra="hub").url_to_fs
    try:
        fs, root = url_to_fs(out)
    except (ValueError, ImportError) as error:
        raise ValueError(f"cannot use {out} for results: {error}") from error
    return Store(fs, root.rstrip("/"))


def _record_path(trial: Trial) -> str:
    return f"trials/{trial.name}.json"


def _copy(folder: Path, to: RunFolder) -> None:
    """Copy a run folder; an incomplete one in its place is replaced."""
    with locked(to.path):
        if to.is_complete:
            return
        with replacing(to.path) as aside:
            copytree(folder, aside)
            rmtree(to.path, ignore_errors=True)
