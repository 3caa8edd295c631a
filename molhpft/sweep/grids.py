"""The settings of a sweep, grid by grid, and what came of the runs of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from molhpft.config.changes import SWEEP
from molhpft.config.options import Options
from molhpft.domains.files import Json
from molhpft.sweep.execute import LocalWorkers, sweep
from molhpft.sweep.spec import Trial, parse_sweep
from molhpft.sweep.store import store_at


@dataclass(frozen=True)
class Setting:
    """One combination of a sweep but for the seed, with its results.

    Attributes:
        seeds: a run's summary for each seed.
    """

    seeds: Sequence[Json]

    @property
    def metric(self) -> str:
        """Of the score."""
        metric: str = self.seeds[0]["metric"]
        return metric


def planned(raw: Options) -> list[list[list[Trial]]]:
    """Trials of a sweep by grid, then by setting, in the order in which the config has them.

    Raises:
        ValueError: the config is no valid sweep.
    """
    parse_sweep(raw)  # refuses what is no sweep, and keys that act in no trial at all
    grids = raw[SWEEP] if isinstance(raw[SWEEP], list) else [raw[SWEEP]]
    return [
        _by_setting(grid, parse_sweep({**raw, SWEEP: grid}, unused_are="dropped")) for grid in grids
    ]


def _by_setting(grid: Options, trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials that differ in their seed alone, in the order of the grid and not of their probes."""
    varied = [key for key in grid if key not in ("seed", "seeds")]

    def place(trial: Trial) -> tuple[int, ...]:
        given = trial.settings
        return tuple(grid[key].index(given[key]) if key in given else -1 for key in varied)

    settings: dict[tuple[int, ...], list[Trial]] = {}
    for trial in sorted(trials, key=place):
        settings.setdefault(place(trial), []).append(trial)
    return list(settings.values())


def run_all(raw: Options, out: Path, *, threads: int | None = None) -> list[list[Setting]]:
    """Run every trial of a sweep that is not finished, and read its results by grid and setting.

    Trials that failed in an earlier call are run again.

    Args:
        raw: a sweep's config.
        out: folder of run folders.
        threads: of each of the processes that run the trials side by side; None divides all.

    Raises:
        ValueError: the config is no valid sweep, or a trial failed.
    """
    grids = planned(raw)
    rows = {
        row["name"]: row
        for row in sweep(parse_sweep(raw), str(out), LocalWorkers(threads=threads), retry=True)
    }
    failed = [row for row in rows.values() if row["status"] == "failed"]
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(rows)} runs failed, the first with: {failed[0]['error']}"
        )
    store = store_at(str(out))
    return [
        [
            Setting([store.summary(str(rows[trial.name]["run"])) for trial in setting])
            for setting in grid
        ]
        for grid in grids
    ]
