"""The folder of a sweep: its run folders, and a record of each trial, here or at a URL."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any
from uuid import uuid4

import fsspec

from molhpft.domains.files import ASIDE, Json, UnwritableError, replacing
from molhpft.run.folder import MANIFEST, RunFolder, file_sizes, lacking
from molhpft.run.lock import locked
from molhpft.sweep.trial import Job, Outcome


@dataclass(frozen=True)
class Store:
    """A place for results, on any file system that fsspec knows.

    Attributes:
        fs: the file system.
        root: the folder there.
    """

    fs: Any
    root: str

    @property
    def local(self) -> Path | None:
        """The folder where it is one of this machine's (or mounted here); None elsewhere."""
        return Path(self.root) if "file" in _protocols(self.fs) else None

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            UnwritableError: it cannot be made.
        """
        with self._writing("trials"):
            self.fs.makedirs(f"{self.root}/trials", exist_ok=True)

    def record(self, job: Job) -> Json | None:
        """What was last recorded of a trial; None if nothing was.

        Raises:
            ValueError: the record is damaged.
        """
        return self._read(_record(job))

    def keep(self, job: Job, outcome: Outcome) -> None:
        """Record what became of a trial.

        Raises:
            UnwritableError: the folder takes no more.
        """
        said = {**asdict(outcome), "settings": job.settings, "config": job.config}
        text = json.dumps(said, indent=2, default=str) + "\n"
        with self._writing(_record(job)):
            aside = f"{self.root}/trials/.{uuid4().hex}{ASIDE}"
            self.fs.pipe_file(aside, text.encode())
            self.fs.mv(aside, f"{self.root}/{_record(job)}")

    def is_complete(self, run: str) -> bool:
        """Whether there is a run folder of that name, and all of it is there; see `manifest`."""
        base = f"{self.root}/{run}"
        self.fs.invalidate_cache()  # another machine may have written since
        found = {
            path.removeprefix(f"{base}/"): about["size"]
            for path, about in self.fs.find(base, detail=True).items()
        }
        text = self.fs.cat_file(f"{base}/{MANIFEST}") if MANIFEST in found else None
        return not lacking(text, found)

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
        """Copy a complete run folder into the store; it is not read there before it is whole.

        Raises:
            UnwritableError: the store takes no more.
        """
        with self._writing(folder.name):
            if self.local:
                _copy(folder, RunFolder(self.local / folder.name))
                return
            if self.is_complete(folder.name):
                return
            # stores of objects do not rename folders: the file that makes a run complete is last
            for name in sorted(file_sizes(folder), key=lambda name: name == MANIFEST):
                place = f"{self.root}/{folder.name}/{name}"
                self.fs.makedirs(place.rpartition("/")[0], exist_ok=True)
                self.fs.put_file(str(folder / name), place)

    def _read(self, name: str) -> Json | None:
        path = f"{self.root}/{name}"
        if not self.fs.isfile(path):
            return None
        try:
            content = json.loads(self.fs.cat_file(path))
        except ValueError as error:
            raise ValueError(
                f"{path} is damaged ({error}); delete {path.removesuffix('/summary.json')} and "
                "sweep again"
            ) from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} is damaged: it holds no object; delete it and sweep again")
        return content

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnwritableError(
                f"cannot write {self.root}/{name}: {error}; make room or choose another folder "
                "(--out), and sweep again: it goes on where it was"
            ) from error


def store_at(out: str) -> Store:
    """The store at a path or URL, such as "runs/tox21" or "s3://bucket/tox21".

    Raises:
        ValueError: no installed package knows the URL's protocol.
    """
    try:
        fs, root = fsspec.core.url_to_fs(out)
    except (ValueError, ImportError) as error:
        raise ValueError(f"cannot use {out} for results: {error}") from error
    return Store(fs, root.rstrip("/"))


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _record(job: Job) -> str:
    return f"trials/{job.name}.json"


def _copy(folder: Path, to: RunFolder) -> None:
    """Copy a run folder whole; what is there of it already is replaced where it lacks something."""
    with locked(to.path):
        if to.is_complete:
            return
        with replacing(to.path) as aside:
            copytree(folder, aside)
            rmtree(to.path, ignore_errors=True)
