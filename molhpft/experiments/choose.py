"""The choice of tau for a run that says `tau: auto`, with its evidence.

Nothing here may see the test split: tasks come without it.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from math import nan

import torch

from molhpft.core.network import Network
from molhpft.core.task import Task
from molhpft.experiments.along import energies, looks, only
from molhpft.experiments.folder import Json, RunFolder
from molhpft.experiments.guide import (
    SMOOTHING,
    Trail,
    has_too_little_energy,
    plateaus,
)
from molhpft.experiments.tables import score_name, show
from molhpft.tuning.checkpoints import Weights
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe_many
from molhpft.tuning.recipes import Recipe
from molhpft.tuning.select import CANDIDATES, affordable, budget, halve, rounds, spaced, watched
from molhpft.tuning.trajectory import Trajectory

FILE = "choice.json"

Tried = Callable[[Recipe, int], tuple[int, float]]
Heads = dict[str, Weights]  # by `Recipe.key`


def choose(
    recipe: Recipe,
    probed: Network,
    features: Task,
    folder: RunFolder,
    tried: Tried,
    *,
    seed: int,
    kept: Json | None,
) -> Json:
    """Choose tau, or go on with the choice that an interrupted run has begun.

    Args:
        recipe: that `chooses`.
        probed: what its head is probed on; afterwards it has the head it came with.
        features: what `probed` reads, without the test split.
        folder: gets `choice.json` after every score.
        tried: finetunes by a recipe until an epoch; gives epochs done and the validation score.
        seed: of the probe.
        kept: what the folder already has of the choice.

    Returns:
        the choice: candidates, their scores, what they cost, and the one that was `chosen`.
    """
    start = deepcopy(probed.head.state_dict())
    if kept is None:
        choice, heads = _begun(recipe, probed, features, seed)
    else:
        choice, heads = deepcopy(kept), _heads(recipe, kept, probed, features, seed)
    folder.write_json(FILE, choice)
    epochs = recipe.after[0].epochs

    def score(candidate: Json, until: int) -> float:
        known = _score_of(choice, candidate, until)
        if known is None:
            own = candidate_recipe(recipe, candidate)
            probed.head.load_state_dict(heads[own.key])
            done, known = tried(own, until)
            named = {name: candidate[name] for name in ("tau", "smoothing")}
            row = {**named, "until": until, "epochs": done, "valid": known}
            choice["scores"].append(row)
            folder.write_json(FILE, choice)
        return known

    candidates = choice["candidates"]
    best = halve(candidates, rounds(len(candidates), epochs=epochs), score)
    choice |= {"chosen": best, "spent": _spent(choice, best, epochs)}
    folder.write_json(FILE, choice)
    probed.head.load_state_dict(start)
    return choice


def candidate_recipe(recipe: Recipe, candidate: Json) -> Recipe:
    """The recipe of one candidate: that of a config which names its tau and smoothing."""
    probe = replace(recipe.probe, epochs=candidate["tau"], smoothing=candidate["smoothing"])
    return replace(recipe, probe=probe, chooses=False)


def choice_reading(choice: Json, metric: str) -> str:
    """The choice in a few sentences."""
    best, others = choice["chosen"], [c for c in choice["candidates"] if c != choice["chosen"]]
    sentences = [f"tau {_name(best)} was the only candidate along the probe."]
    if others:
        names = ", ".join(_name(candidate) for candidate in choice["candidates"])
        *_, last = (row for row in choice["scores"] if _same(row, best))
        sentences = [
            f"tau {_name(best)} was chosen among {names} (even steps of energy) by the validation "
            f"scores of short finetunings, in which it led after epoch {last['epochs']} with "
            f"{score_name(metric)} {show(last['valid'], metric)}."
        ]
    sentences.append(
        f"Finetuning took at most {choice['spent']} epochs in all, of a budget of "
        f"{choice['budget']}; {CANDIDATES} taus to the end take {choice['grid']}. The test split "
        "was not read for the choice."
    )
    return " ".join([*sentences, *choice["notes"]])


def _begun(recipe: Recipe, probed: Network, features: Task, seed: int) -> tuple[Json, Heads]:
    """Candidates along the probe, and their heads; nothing is finetuned yet."""
    longest, epochs = recipe.tau, recipe.after[0].epochs
    plain = _probed(probed, recipe.probe, features, watched(longest), seed)
    energy, count = energies(plain, probed, features), affordable(epochs)
    seen = looks(only(plain, {*spaced(energy, count), longest}), probed, features)
    trail = Trail(features.objective.metric, energy, seen)
    why = has_too_little_energy(trail) if _may_smooth(recipe) and count > 2 else None
    taus = spaced(energy, count - bool(why))
    own = recipe.probe.smoothing
    candidates: list[Json] = [{"tau": t, "smoothing": own, "energy": energy[t]} for t in taus]
    heads = {candidate_recipe(recipe, c).key: plain.heads[c["tau"]] for c in candidates}
    notes = _notes(why, plateaus(trail))
    if why:
        smoothed = _probed(
            probed, replace(recipe.probe, smoothing=SMOOTHING), features, [longest], seed
        )
        reserved = energies(smoothed, probed, features)[longest]
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


def _heads(recipe: Recipe, choice: Json, probed: Network, features: Task, seed: int) -> Heads:
    """Heads of candidates that were found before an interruption."""
    heads: Heads = {}
    for smoothing in dict.fromkeys(candidate["smoothing"] for candidate in choice["candidates"]):
        some = [
            candidate_recipe(recipe, candidate)
            for candidate in choice["candidates"]
            if candidate["smoothing"] == smoothing
        ]
        taus = [own.tau for own in some]
        found = _probed(probed, some[0].probe, features, taus, seed).heads
        heads |= {own.key: found[own.tau] for own in some}
    return heads


def _probed(
    network: Network, phase: Phase, task: Task, taus: list[int] | tuple[int, ...], seed: int
) -> Trajectory:
    rng = torch.Generator().manual_seed(seed)
    ((trajectory,),) = probe_many([network], [phase], task, taus=taus, rngs=[rng])
    return trajectory.whole()


def _score_of(choice: Json, candidate: Json, until: int) -> float | None:
    rows = (row for row in choice["scores"] if _same(row, candidate) and row["until"] == until)
    scores = (row["valid"] for row in rows)
    # JSON has no NaN: the score of predictions that are not finite comes back as null
    return next((nan if score is None else score for score in scores), None)


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
