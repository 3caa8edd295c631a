"""`tau: auto`: the head to finetune from, chosen by short finetunings (successive halving).

Candidates are evenly spaced in energy along one probe. They are finetuned a little, those that
validate best go on from where they were, and so on. The test split is taken off the task first.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from math import nan

import torch

from molhpft.core.data import Task
from molhpft.core.determinism import deterministic_on_gpus, seed_for
from molhpft.core.metrics import score_name, show
from molhpft.core.network import Network
from molhpft.domains.files import Json
from molhpft.run.branch import RunContext, finetune, write_member
from molhpft.run.probe_curve import SMOOTHING, ProbeCurve, has_too_little_energy, plateaus
from molhpft.run.side_by_side import HERE, Processes
from molhpft.run.trajectory import at_taus, head_energies, head_rows, probing_ground, without_test
from molhpft.tuning.callbacks import Weights
from molhpft.tuning.fit import score
from molhpft.tuning.halving import (
    CANDIDATES,
    affordable,
    budget,
    rounds,
    spaced,
    survivors,
    watched,
)
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import Trajectory, probe, with_head
from molhpft.tuning.recipes import Recipe

CHOICE_FILE = "choice.json"

Heads = dict[str, Weights]  # by `Recipe.key`


def choose_tau(
    network: Network,
    task: Task,
    recipe: Recipe,
    context: RunContext,
    processes: Processes = HERE,
) -> Json:
    """Choose tau, resume the choice of an interrupted run, or find it made.

    Args:
        network: whose head is probed; left as it is.
        task: to choose on; its test split is not read.
        recipe: that `chooses`.
        context: of the run; its folder gets `choice.json` after every score.
        processes: that finetune candidates.

    Returns:
        the choice: candidates, their scores, what they cost, and the one that was `chosen`.
    """
    config, folder, machine = context.config, context.folder, context.machine
    choice = machine.agreed(folder.read_unfinished(CHOICE_FILE))
    if choice and choice["chosen"]:
        return choice
    task, seed = without_test(task), seed_for(config.seed, "probe")
    probed, features = probing_ground(network, task, views=config.views, seed=config.seed)
    if choice:
        heads = _heads(recipe, choice, probed, features, seed)
    else:
        choice, heads = _first_choice(recipe, probed, features, seed)
    folder.write_json(CHOICE_FILE, choice)
    left, epochs = choice["candidates"], recipe.after[0].epochs
    plan = rounds(len(left), epochs=epochs)
    for now, count in zip(plan, [*(later.size for later in plan[1:]), 1], strict=False):
        new = [c for c in left if not _scored(choice, c, now.until)]
        recipes = [candidate_recipe(recipe, candidate) for candidate in new]
        jobs = [
            partial(_finetuned, network, heads[own.key], task, own, context, now.until)
            for own in recipes
        ]
        # however this ends, no process writes to the folder afterwards
        with closing(processes.results(jobs, f"choosing tau among {len(left)}")) as scored:
            for candidate, (behind, valid) in zip(new, scored, strict=True):
                named = {name: candidate[name] for name in ("tau", "smoothing")}
                row = {**named, "until": now.until, "epochs": behind, "valid": valid}
                choice["scores"].append(row)
                folder.write_json(CHOICE_FILE, choice)
        scores = [_score_of(choice, candidate, now.until) for candidate in left]
        left = survivors(left, scores, count)
    choice |= {"chosen": left[0], "spent": _spent(choice, left[0], epochs)}
    folder.write_json(CHOICE_FILE, choice)
    return choice


@deterministic_on_gpus()
def _finetuned(
    network: Network, head: Weights, task: Task, recipe: Recipe, context: RunContext, until: int
) -> tuple[int, float]:
    """Finetune a candidate on; gives the epochs that it has behind it, and its score then."""
    tuned, rows = finetune(with_head(network, head), task, recipe, context, until=until)
    write_member(tuned, recipe, context)
    context.machine.wait()  # the first process has written what all resume from
    return len(rows), context.machine.agreed(score(tuned, task, "valid"))


def candidate_recipe(recipe: Recipe, candidate: Json) -> Recipe:
    """The recipe of one candidate: that of a config which names its tau and smoothing."""
    probe = replace(recipe.probe, epochs=candidate["tau"], smoothing=candidate["smoothing"])
    return replace(recipe, probe=probe, chooses=False)


def epochs_of_chosen(choice: Json) -> int:
    """Epochs of finetuning that the chosen candidate has behind it once it is chosen."""
    own = (row["epochs"] for row in choice["scores"] if _same(row, choice["chosen"]))
    return max(own, default=0)


def choice_reading(choice: Json, metric: str) -> str:
    """The choice in a few sentences."""
    best, others = choice["chosen"], [c for c in choice["candidates"] if c != choice["chosen"]]
    sentences = [f"tau {_name(best)} was the only candidate the probe offered."]
    if others:
        names = ", ".join(_name(candidate) for candidate in choice["candidates"])
        *_, last = (row for row in choice["scores"] if _same(row, best))
        sentences = [
            f"tau {_name(best)} was chosen among {names} (evenly spaced in energy) by the "
            f"validation scores of short finetunings, in which it led after epoch {last['epochs']} "
            f"with {score_name(metric)} {show(last['valid'], metric)}."
        ]
    sentences.append(
        f"Finetuning took at most {choice['spent']} of the {choice['budget']} epochs budgeted; "
        f"finetuning {CANDIDATES} taus to the end would take {choice['grid']}. The test split was "
        "not read for the choice."
    )
    return " ".join([*sentences, *choice["notes"]])


def _first_choice(recipe: Recipe, network: Network, task: Task, seed: int) -> tuple[Json, Heads]:
    """Candidates along the probe, and their heads; nothing is finetuned yet."""
    longest, epochs = recipe.tau, recipe.after[0].epochs
    plain = _probe(network, recipe.probe, task, watched(longest), seed)
    energy, count = head_energies(plain, network, task), affordable(epochs)
    seen = head_rows(at_taus(plain, {*spaced(energy, count), longest}), network, task)
    curve = ProbeCurve(task.objective.metric, energy, seen)
    why = has_too_little_energy(curve) if _may_smooth(recipe) and count > 2 else None
    taus = spaced(energy, count - bool(why))
    own = recipe.probe.smoothing
    candidates: list[Json] = [{"tau": t, "smoothing": own, "energy": energy[t]} for t in taus]
    heads = {candidate_recipe(recipe, c).key: plain.heads[c["tau"]] for c in candidates}
    notes = _notes(why, plateaus(curve))
    if why:
        smoothing = replace(recipe.probe, smoothing=SMOOTHING)
        smoothed = _probe(network, smoothing, task, [longest], seed)
        reserved = head_energies(smoothed, network, task)[longest]
        candidates.append({"tau": longest, "smoothing": SMOOTHING, "energy": reserved})
        heads[candidate_recipe(recipe, candidates[-1]).key] = smoothed.heads[longest]
    about: Json = {
        "chosen": None,
        "candidates": candidates,
        "scores": [],
        "budget": budget(epochs),
        "grid": CANDIDATES * epochs,
        "notes": notes,
        "energies": [{"tau": tau, "energy": value} for tau, value in energy.items()],
    }
    return about, heads


def _notes(little_energy: str | None, little_fit: str | None) -> list[str]:
    notes = []
    if little_energy:
        notes.append(
            f"A head probed with label smoothing (lsHP) was a candidate, since {little_energy}."
        )
    if little_fit:
        # not a candidate: the head is a section of the config of its own, and another network
        notes.append(f"A run with an MLP head (--set head=mlp) is worth comparing: {little_fit}.")
    return notes


def _may_smooth(recipe: Recipe) -> bool:
    """Whether smoothing while probing would add to the method, not change what it is about."""
    smooths = any(phase.smoothing for phase in (recipe.probe, *recipe.after))
    return not smooths and not recipe.contrast


def _heads(recipe: Recipe, choice: Json, network: Network, task: Task, seed: int) -> Heads:
    """Heads of candidates that were found before an interruption."""
    heads: Heads = {}
    for smoothing in dict.fromkeys(candidate["smoothing"] for candidate in choice["candidates"]):
        some = [
            candidate_recipe(recipe, candidate)
            for candidate in choice["candidates"]
            if candidate["smoothing"] == smoothing
        ]
        taus = [own.tau for own in some]
        by_tau = _probe(network, some[0].probe, task, taus, seed).heads
        heads |= {own.key: by_tau[own.tau] for own in some}
    return heads


def _probe(
    network: Network, phase: Phase, task: Task, taus: Sequence[int], seed: int
) -> Trajectory:
    return probe(network, phase, task, taus=taus, rng=torch.Generator().manual_seed(seed))


def _scored(choice: Json, candidate: Json, until: int) -> list[Json]:
    """The row of a candidate's score in a round, if it has one."""
    return [r for r in choice["scores"] if _same(r, candidate) and r["until"] == until]


def _score_of(choice: Json, candidate: Json, until: int) -> float:
    [row] = _scored(choice, candidate, until)
    # JSON has no NaN: the score of predictions that are not finite comes back as null
    return nan if row["valid"] is None else row["valid"]


def _same(one: Json, other: Json) -> bool:
    return all(one[name] == other[name] for name in ("tau", "smoothing"))


def _spent(choice: Json, best: Json, epochs: int) -> int:
    """Epochs of finetuning in all: the chosen one to its end, each other to its last pause."""
    others = [row for row in choice["scores"] if not _same(row, best)]
    last: dict[tuple[int, float], int] = {(r["tau"], r["smoothing"]): r["epochs"] for r in others}
    return epochs + sum(last.values())


def _name(candidate: Json) -> str:
    smoothing = candidate["smoothing"]
    return f"{candidate['tau']} (smoothing {smoothing:g})" if smoothing else str(candidate["tau"])
