"""Scores that are computed once: lines of JSON in a file, found again by what they depend on."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from molhpft.domains.files import digest


class ResultStore:
    """Results by key; a line is written as soon as a result is there, so that a kill loses one.

    >>> import tempfile
    >>> store = ResultStore(Path(tempfile.mkdtemp()) / "results.jsonl")
    >>> store.once({"set": "bace"}, lambda: 0.8), store.once({"set": "bace"}, lambda: 0.9)
    (0.8, 0.8)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        rows = filter(None, map(_row, lines))
        self._results = {row["key"]: row["result"] for row in rows}

    def once(self, depends_on: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """What `compute()` gives, or gave for the same `depends_on`, which is stored with it."""
        key = _key(depends_on)
        if key not in self._results:
            self._results[key] = compute()
            line = json.dumps({"key": key, **depends_on, "result": self._results[key]})
            with self.path.open("a") as file:
                file.write(f"\n{line}\n")
        return self._results[key]

    def known(self, depends_on: Mapping[str, Any]) -> Any:
        """What is stored for `depends_on`; None where nothing is."""
        return self._results.get(_key(depends_on))


def _key(depends_on: Mapping[str, Any]) -> str:
    return digest(json.dumps(depends_on, sort_keys=True))[:20]


def _row(line: str) -> dict[str, Any] | None:
    """What a line holds; None for half of one, which a process leaves that is killed in writing."""
    try:
        return dict(json.loads(line))
    except json.JSONDecodeError:
        return None
