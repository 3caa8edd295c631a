"""Columns of a table that were computed elsewhere: scores read from a file.

Each line of the file is a JSON object with at least `KINDS`, as `chemprop_scores.py` writes it.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from development_sets import DevelopmentSet

OF_ONE_SCORE = {"model": str, "set": str, "rows": str, "seed": int}
"""Keys that tell the scores of a file apart, and what stands there."""
KINDS = OF_ONE_SCORE | {"score": float}
"""Of a line; other keys may be there for people."""
_CALLED = {str: "a text", int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Beside:
    """Scores of another package's model.

    Attributes:
        path: of the file, for messages.
        model: its name and version.
        lines: of this model.
    """

    path: Path
    model: str
    lines: Sequence[dict[str, Any]]

    @property
    def name(self) -> str:
        """Of its column: the model and how many seeds its scores are means over."""
        counts = Counter(line["rows"] for line in self.lines).values()
        fewest, most = min(counts), max(counts)
        if fewest < most:
            return f"{self.model}, {fewest} to {most} seeds"
        return f"{self.model}, {most} seed{'s' if most > 1 else ''}"

    def score(self, data: DevelopmentSet) -> float:
        """Mean over folds and seeds.

        Raises:
            ValueError: there are none, or not of these molecules, labels and splits.
        """
        if data.name not in {line["set"] for line in self.lines}:
            raise ValueError(f"{self.path} has no {self.model} of {data.name}; name other --sets")
        scores = []
        for fold in data.folds:
            rows = data.split_digest(fold)
            of_fold = [line["score"] for line in self.lines if line["rows"] == rows]
            if not of_fold:
                raise ValueError(
                    f"{self.path} should hold scores of {self.model} on the molecules, labels and "
                    f"split of {data.name} that are printed; those it holds are of others: "
                    f"give the --split it was computed for, or compute it again"
                )
            scores.append(mean(of_fold))
        return mean(scores)


def read_beside(path: Path) -> list[Beside]:
    """The models of a file, each a column.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line of it is not a score or repeats another, or there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no scores at {path}; give a file of chemprop_scores.py")
    texts = path.read_text().splitlines()
    lines = [_line(path, number, text) for number, text in enumerate(texts, start=1)]
    if not lines:
        raise ValueError(f"{path} should hold scores, but is empty")
    _refuse_repeated(path, lines)
    models = dict.fromkeys(line["model"] for line in lines)
    return [Beside(path, model, [k for k in lines if k["model"] == model]) for model in models]


def _refuse_repeated(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Refuse two scores of one seed, which would be counted as those of two.

    Raises:
        ValueError: two lines are of the same model, set, rows and seed.
    """
    first: dict[tuple[Any, ...], int] = {}
    for number, line in enumerate(lines, start=1):
        before = first.setdefault(tuple(line[key] for key in OF_ONE_SCORE), number)
        if before != number:
            raise ValueError(
                f"lines {before} and {number} of {path} are both of {line['model']} on "
                f"{line['set']} with seed {line['seed']}, of the same rows: delete one"
            )


def _line(path: Path, number: int, text: str) -> dict[str, Any]:
    """A line of the file.

    Raises:
        ValueError: it is not an object with all of `KINDS`.
    """
    try:
        line = json.loads(text)
    except ValueError:  # no JSON, or a number too long to be read
        line = None
    if not isinstance(line, dict) or not line.keys() >= KINDS.keys():
        keys = ", ".join(sorted(KINDS))
        raise ValueError(f"line {number} of {path} should be a JSON object with the keys {keys}")
    for key, kind in KINDS.items():
        if not _is(line[key], kind):
            raise ValueError(
                f"{key} in line {number} of {path} should be {_CALLED[kind]}, not {line[key]!r}"
            )
    return line


def _is(value: Any, kind: type[Any]) -> bool:
    """Whether a value of JSON is of a kind: finite numbers, whole ones too, are; true is none."""
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is kind
