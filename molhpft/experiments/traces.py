"""What a run leaves of its epochs, read with suspicion: each, and how many a choice of tau took."""

import json
from pathlib import Path
from typing import Any

from molhpft.experiments.folder import Json

AGAIN = "delete the folder and run its config again"


def read_history(path: Path) -> list[Json]:
    """Rows of `history.jsonl` of a run folder.

    Raises:
        ValueError: it is missing, or a line of it is no epoch.
    """
    rows = []
    for number, line in enumerate(read_text(path / "history.jsonl").splitlines(), start=1):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"history.jsonl is damaged in line {number}") from error
        if not _is_row(row):
            raise ValueError(f"history.jsonl has no epoch of a run in line {number}")
        rows.append(row)
    return rows


def read_spent(path: Path, config: Json) -> int | None:
    """Epochs of finetuning that `tau: auto` took in all, those of taus it gave up among them.

    Args:
        path: a run folder.
        config: of the run; one that names its tau has chosen nothing, hence None.

    Raises:
        ValueError: `choice.json` is missing or does not say it.
    """
    if config["method"].get("tau") != "auto":
        return None
    try:
        choice = json.loads(read_text(path / "choice.json"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"choice.json is damaged ({error}); {AGAIN}") from error
    spent = choice.get("spent") if isinstance(choice, dict) else None
    if type(spent) is not int:
        raise ValueError(f"choice.json does not say how many epochs it took; {AGAIN}")
    return spent


def read_text(path: Path) -> str:
    """A file as text.

    Raises:
        ValueError: it is missing, or no text.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing; {AGAIN}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is damaged (no text); {AGAIN}") from error


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("phase"), str):
        return False
    counted = ("epoch", "tau") if row["phase"].startswith("finetune") else ("epoch",)
    return all(type(row.get(key)) is int for key in counted)
