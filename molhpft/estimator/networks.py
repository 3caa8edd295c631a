"""Finetuned networks as members of a model: one run, or one for each fold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from molhpft.config.build import build_recipes
from molhpft.config.schema import Choice, RunConfig
from molhpft.core.data import Task
from molhpft.core.determinism import one_thread
from molhpft.core.evaluate import predict
from molhpft.core.network import Network
from molhpft.core.objectives import Squared
from molhpft.domains.files import Json, digest
from molhpft.domains.weights import read_weights
from molhpft.estimator.blend import Line, between
from molhpft.estimator.model import NetworkSpec
from molhpft.run.auto_tau import epochs_of_chosen
from molhpft.run.folder import RunFolder
from molhpft.run.run import choose, run
from molhpft.run.side_by_side import Processes
from molhpft.run.timetable import timetable
from molhpft.tuning.recipes import Recipes


@dataclass(frozen=True, eq=False)
class NetworksOfTau:
    """Networks that began with heads of one tau, one for each run.

    Attributes:
        key: of their recipe, `tau20`.
        tau: epochs of head probing; None of a head that was solved or kept, from no random one.
        networks: of the runs, in order.
        units: of each run, from numbers in the standard deviations of what trained it to those of
            the spec.
    """

    key: str
    tau: int | None
    networks: tuple[Network, ...]
    units: tuple[Line, ...]

    def logits(self, task: Task, split: str) -> Tensor:
        """Logits (n, t) of a split, averaged over the networks."""
        return torch.stack(self.member_logits([task] * len(self.networks), split)).mean(0)

    def member_logits(self, tasks: Sequence[Task], split: str) -> list[Tensor]:
        """Logits (n, t) that each network gives of a split of a task of its own."""
        every = zip(self.networks, self.units, tasks, strict=True)
        return [unit(predict(network, task, split).logits) for network, unit, task in every]


def finetuned(
    config: RunConfig,
    parts: Sequence[Task],
    spec: NetworkSpec,
    out: Path,
    processes: Processes,
) -> tuple[list[NetworksOfTau], list[RunFolder]]:
    """Networks of every tau that all runs have, and the runs; what is there already is found.

    Where tau is chosen automatically, it is chosen on the first part, for all. Runs score several
    numbers in standard deviations, so that none counts for more by its unit.

    Args:
        config: of the runs.
        parts: what each run trains and validates on.
        spec: of the networks.
        out: folder of run folders.
        processes: for several parts; a single one has this process and all its threads.

    Raises:
        ValueError: task, settings and this machine do not go together.
        OSError: `out` cannot be written to.
    """
    units = tuple(between(p.objective, spec.objective, outputs=p.outputs) for p in parts)
    config, parts = replace(config, members=True), [_in_one_unit(part) for part in parts]
    if len(parts) == 1:
        folders = [run(config, out, task=parts[0])]
    else:
        with one_thread():
            folders = _finetuned_on_each(config, parts, out, processes)
    members = [_members(folder) for folder in folders]
    networks = [
        NetworksOfTau(key, tau, tuple(_network(spec, own[key][1]) for own in members), units)
        for key, (tau, _) in members[0].items()
        if all(key in own for own in members)
    ]
    return networks, folders


def _finetuned_on_each(
    config: RunConfig, parts: Sequence[Task], out: Path, processes: Processes
) -> list[RunFolder]:
    """One run for each part; what is chosen on the first one is given to the others."""
    other, behind = config, 0
    if build_recipes(config)[0].chooses:
        choice = choose(config, out, task=parts[0], processes=processes)
        other, behind = with_chosen(config, choice["chosen"]), epochs_of_chosen(choice)
    configs = [config, *(replace(other, seed=config.seed + k) for k in range(1, len(parts)))]
    pieces = _pieces(build_recipes(other), behind, len(parts), processes)
    jobs = [partial(run, configs[k], out, task=parts[k], until=until) for k, until in pieces]
    folders = processes.results(jobs, "finetuning")
    folder_of = {k: folder for (k, _), folder in zip(pieces, folders, strict=True)}
    return [folder_of[k] for k in range(len(parts))]


def _pieces(
    recipes: Recipes, behind: int, count: int, processes: Processes
) -> list[tuple[int, int | None]]:
    """What to hand to processes, in order: a run, and the epoch that it pauses after, if it does.

    Args:
        recipes: of each run; where they are not one finetuning of known length, runs stay whole.
        behind: epochs that the first run has been finetuned for already.
        count: of runs.
        processes: that do them.
    """
    phases = [phase for recipe in recipes for phase in recipe.after]
    if len(recipes) > 1 or len(phases) != 1 or phases[0].patience is not None:
        return [(k, None) for k in range(count)]
    epochs = phases[0].epochs
    runs = [range(behind, epochs), *[range(epochs)] * (count - 1)]
    pieces = timetable(runs, processes=max(1, processes.count))
    return [
        (piece.run, None if piece.epochs.stop == epochs else piece.epochs.stop) for piece in pieces
    ]


def _in_one_unit(task: Task) -> Task:
    if not isinstance(task.objective, Squared) or task.outputs == 1:
        return task
    # another task for the name of a run, whose scores are others
    fingerprint = digest(task.fingerprint, "in standard deviations")
    return replace(task, objective=Squared(), fingerprint=fingerprint)


def with_chosen(config: RunConfig, chosen: Json) -> RunConfig:
    """The config with the tau, and the smoothing while probing, that `tau: auto` has chosen."""
    options = {**config.method.options, "tau": (chosen["tau"],)}
    probe = config.probe
    if chosen["smoothing"] != build_recipes(config)[0].probe.smoothing:
        probe = replace(probe, smoothing=chosen["smoothing"])
    return replace(config, method=Choice(config.method.name, options), probe=probe)


def _members(folder: RunFolder) -> dict[str, tuple[int | None, Path]]:
    """Key of a recipe to its tau and its network's file, by tau."""
    files = (folder.path / "members").glob("*.safetensors")
    by_key = {path.stem: (read_weights(path).about["tau"], path) for path in files}
    return dict(sorted(by_key.items(), key=lambda member: (member[1][0] or 0, member[0])))


def _network(spec: NetworkSpec, path: Path) -> Network:
    network = spec.network()
    network.load_state_dict(read_weights(path).tensors)
    return network.eval()
