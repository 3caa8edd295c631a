"""`tau: auto`: how the head to finetune from is chosen, and the rules that a probe is read by.

Nothing here may see the test split: tasks come without it. The rules are those of the user guide
(Ren et al., 2023, section 5). Where the guide gives a number, the threshold is that number; where
it gives a word, the threshold is our reading of it, and its comment says so.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import nan
from typing import Literal, get_args

import torch

from molhpft.core.data import Task
from molhpft.core.metrics import score_name, show
from molhpft.core.network import Network
from molhpft.domains.files import Json
from molhpft.run.folder import RunFolder
from molhpft.run.trajectory import at_taus, head_energies, head_rows
from molhpft.tuning.callbacks import Weights
from molhpft.tuning.halving import CANDIDATES, affordable, budget, halve, rounds, spaced, watched
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import Trajectory, probe
from molhpft.tuning.recipes import Recipe

Expectation = Literal["strong", "mild", "tiny"]
"""How much a user expects finetuning to change the features: where section 5.1 starts."""

# "HP training accuracy reaches 100 %": the last percent is left to wrong labels
SATURATED = 0.99
# "90 % and more very fast" (the authors' poster); ROC-AUC begins at 50 %, so as far on the way
HIGH = {"accuracy": 0.9, "miou": 0.9, "ap": 0.9, "rocauc": 0.95}
# "very fast": our reading, within this share of the probe
FAST = 0.1
# energies of each expectation, as shares of the random head's: our reading, from the linear theory,
# where adaptation is strong above half of the energy of outputs of 0 and tiny at none
BANDS = {"strong": (0.5, float("inf")), "mild": (0.1, 0.5), "tiny": (0.0, 0.1)}
# "too little energy": our reading, what only tiny adaptation wants
GONE = BANDS["tiny"][1]
# a probe whose second half still takes this share of the energy has not plateaued: our reading
FALLS = 0.1
SMOOTHING = 0.1  # of lsHP, our choice: the paper does not give its own


@dataclass(frozen=True)
class ProbeCurve:
    """What was seen along a probe.

    Attributes:
        metric: name of the score.
        energies: tau to energy (AIE), from tau 0 on, rising in tau.
        rows: some of these taus, the largest among them, to `aie`, `train` and `valid` score.
    """

    metric: str
    energies: Mapping[int, float]
    rows: Mapping[int, Json]

    @property
    def longest(self) -> int:
        """The largest tau."""
        return max(self.energies)

    @property
    def left(self) -> float:
        """Share of the random head's energy that probing to the end leaves, in [0, 1] or above."""
        return self.share(self.longest)

    @property
    def still_falls(self) -> bool:
        """Whether the second half of the probe took much energy, so that more epochs take more."""
        halfway = max(tau for tau in self.energies if tau <= self.longest / 2)
        return self.energies[halfway] > (1 + FALLS) * self.energies[self.longest]

    @property
    def saturation(self) -> int | None:
        """The first tau looked at whose head fits the training split; None where none does."""
        return self.reached(SATURATED)

    def share(self, tau: int) -> float:
        """Energy at a tau as a share of the random head's."""
        return self.energies[tau] / self.energies[0] if self.energies[0] else 0.0

    def reached(self, score: float) -> int | None:
        """The first tau looked at with this training score; None without one, or for a loss."""
        if self.metric not in HIGH:
            return None
        return next((t for t, seen in self.rows.items() if seen["train"] >= score), None)


def check_expectation(expects: str | None) -> None:
    """Refuse what is no expectation.

    Raises:
        ValueError: it is neither None nor one of the three.
    """
    names = get_args(Expectation)
    if expects is not None and expects not in names:
        raise ValueError(f"the adaptation expected is one of {', '.join(names)}, got {expects!r}")


def wanted_taus(
    curve: ProbeCurve, candidates: Sequence[int], expects: Expectation | None
) -> tuple[int, ...]:
    """Those of the candidates whose energy is what the expected adaptation wants.

    Strong adaptation always has tau 0 and tiny adaptation always the longest probe, however little
    or much energy they have; mild adaptation has the candidate nearest to its band where none lies
    in it. Without an expectation all of them are wanted.

    Args:
        curve: what was seen.
        candidates: taus, rising from 0.
        expects: what the user expects; None for no idea.
    """
    if expects is None:
        return tuple(candidates)
    low, high = BANDS[expects]
    ends = {"strong": candidates[0], "tiny": candidates[-1]}
    inside = {tau for tau in candidates if low <= curve.share(tau) <= high}
    inside |= {ends[expects]} if expects in ends else set()
    if not inside:
        inside = {min(candidates, key=lambda tau: _outside(curve.share(tau), low, high))}
    return tuple(sorted(inside))


def has_too_little_energy(curve: ProbeCurve) -> str | None:
    """Why probing to the end leaves too little to adapt features with; None if it does not.

    The guide answers with a smaller tau, or label smoothing while probing (lsHP).
    """
    if curve.metric not in HIGH:
        return None
    high = HIGH[curve.metric]
    early, fitted = curve.reached(high), curve.saturation
    if early is not None and early <= max(1, FAST * curve.longest):
        return _reaches(curve, high, early)
    if fitted is not None:
        return _reaches(curve, SATURATED, fitted)
    if curve.left <= GONE:
        return f"tau {curve.longest} leaves {curve.left:.0%} of the random head's energy"
    return None


def plateaus(curve: ProbeCurve) -> str | None:
    """Why this head cannot give less energy than it has; None if it can, or might in more epochs.

    The guide answers with an MLP head where less is wanted (sections 5.1 and 5.3).
    """
    if curve.metric not in HIGH or curve.saturation is not None:
        return None
    if curve.left <= GONE or curve.still_falls:
        return None
    train = curve.rows[curve.longest]["train"]
    return (
        f"after tau {curve.longest} energy hardly falls any more: the head has stopped at "
        f"{score_name(curve.metric)} {show(train, curve.metric)} on its training split, with "
        f"{curve.left:.0%} of the random head's energy"
    )


def _reaches(curve: ProbeCurve, score: float, tau: int) -> str:
    return (
        f"the probed head reaches {score_name(curve.metric)} {show(score, curve.metric)} on its "
        f"training split by tau {tau} of {curve.longest}"
    )


def _outside(share: float, low: float, high: float) -> float:
    return max(low - share, share - high)


FILE = "choice.json"

Tried = Callable[[Recipe, Weights, int], tuple[int, float]]
Heads = dict[str, Weights]  # by `Recipe.key`


def choose(
    recipe: Recipe,
    network: Network,
    task: Task,
    folder: RunFolder,
    tried: Tried,
    *,
    seed: int,
    begun: Json | None,
) -> Json:
    """Choose tau, or go on with the choice that an interrupted run has begun.

    Args:
        recipe: that `chooses`.
        network: whose head is probed; left as it is.
        task: what `network` reads, without the test split.
        folder: gets `choice.json` after every score.
        tried: finetunes by a recipe, from a head, until an epoch; gives epochs done and the
            validation score.
        seed: of the probe.
        begun: what the folder already has of the choice.

    Returns:
        the choice: candidates, their scores, what they cost, and the one that was `chosen`.
    """
    if begun is None:
        choice, heads = _begun(recipe, network, task, seed)
    else:
        choice, heads = deepcopy(begun), _heads(recipe, begun, network, task, seed)
    folder.write_json(FILE, choice)
    epochs = recipe.after[0].epochs

    def score(candidate: Json, until: int) -> float:
        valid = _score_of(choice, candidate, until)
        if valid is None:
            own = candidate_recipe(recipe, candidate)
            done, valid = tried(own, heads[own.key], until)
            named = {name: candidate[name] for name in ("tau", "smoothing")}
            row = {**named, "until": until, "epochs": done, "valid": valid}
            choice["scores"].append(row)
            folder.write_json(FILE, choice)
        return valid

    candidates = choice["candidates"]
    best = halve(candidates, rounds(len(candidates), epochs=epochs), score)
    choice |= {"chosen": best, "spent": _spent(choice, best, epochs)}
    folder.write_json(FILE, choice)
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


def _begun(recipe: Recipe, network: Network, task: Task, seed: int) -> tuple[Json, Heads]:
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
