"""Each line of advice that the user guide gives, and its reason, from what was seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from molhpft.experiments.guide import (
    POOR,
    SMOOTHING,
    Trail,
    fits_too_little,
    has_too_little_energy,
)
from molhpft.experiments.tables import score_name, show

# Morgan fingerprints better than learned features by more than this say that only low-level
# features transfer; shares of a score, our reading
GAP = 0.02
# below this, statistics of a batch are too noisy to normalise with (Wu and He, 2018, Figure 1)
SMALL_BATCH = 16
# features that move by more than this share of their length without any training: our reading
DRIFTS = 0.1
# answers this rare are outweighed in loss and energy (HIV's actives are 3.5 %): our reading
RARE = 0.1
_UNSETTLED = "energy still falls where the probe ends, so the head is not at its best yet"


@dataclass(frozen=True)
class Advice:
    """One line of advice.

    Attributes:
        topic: what it is about.
        advice: what to do, or that nothing is to be done.
        reason: what was seen.
        changes: "key=value" for `--set`, where the config should change.
    """

    topic: str
    advice: str
    reason: str
    changes: tuple[str, ...] = ()


def tau_advice(
    trail: Trail, candidates: Sequence[int], base_rate: float | None, *, names_tau: bool
) -> Advice:
    """Which taus to compare: even steps of energy, stopped where the head fits its training split.

    Args:
        trail: what was seen.
        candidates: even steps of energy along it, rising.
        base_rate: energy of a head that knows nothing but how common the labels are.
        names_tau: whether the config's method has a tau to set.
    """
    last = trail.longest if trail.saturation is None else trail.saturation
    taus = [tau for tau in candidates if tau <= last]
    reason = (
        f"energy falls from {trail.energies[0]:.3f} at tau 0 to {trail.energies[last]:.3f} at tau "
        f"{last}, and these taus part it evenly; neither end is usually best"
    )
    if trail.saturation is not None and last < trail.longest:
        reason += f"; from tau {last} on the training split is fitted and little energy is left"
    learned = [tau for tau in taus if base_rate is not None and trail.energies[tau] < base_rate]
    if base_rate is not None and learned:
        reason += f"; from tau {learned[0]} on the head knows more than how common the labels are"
    elif base_rate is not None:
        reason += (
            f"; a head that only knows how common the labels are has {base_rate:.3f}, so none of "
            "these has learned much more"
        )
    if len(taus) < 2:
        return Advice("tau", "raise probe.epochs or probe.lr: no tau differs from 0", reason)
    listed = ", ".join(map(str, taus))
    advice = f"compare tau {listed}, or let validation choose among them (tau: auto)"
    change = f"method.tau=[{listed}]" if names_tau else f"method={{name: hp_ft, tau: [{listed}]}}"
    return Advice("tau", advice, reason, (change,))


def smoothing_advice(trail: Trail, *, smoothed: bool) -> Advice:
    """Whether to smooth labels while probing (lsHP)."""
    topic = "label smoothing"
    if trail.metric not in POOR:
        return Advice(topic, "does not apply", "targets are numbers or the score is a loss")
    why = has_too_little_energy(trail)
    if smoothed:
        return Advice(topic, "already in use", f"probing leaves {trail.left:.0%} of the energy")
    if why is None:
        reason = f"tau {trail.longest} still leaves {trail.left:.0%} of the random head's energy"
        return Advice(topic, "not needed", reason)
    change = (f"method={{name: ls_hp_ft, tau: [{trail.longest}], smoothing: {SMOOTHING}}}",)
    return Advice(topic, "try lsHP-FT, which reserves energy", why, change)


def head_advice(trail: Trail, *, linear: bool) -> Advice:
    """Whether to take an MLP head."""
    why = fits_too_little(trail)
    if trail.metric not in POOR:
        reason = f"the guide's rule is about shares of right answers, not {trail.metric}"
        return Advice("MLP head", "not judged", reason)
    train = trail.looks[trail.longest]["train"]
    if why is None and trail.still_falls:
        return Advice("MLP head", "not judged; raise probe.epochs or probe.lr", _UNSETTLED)
    if why is None:
        reason = (
            f"probing reaches {score_name(trail.metric)} {show(train, trail.metric)} on the "
            f"training split and leaves {trail.left:.0%} of the energy"
        )
        return Advice("MLP head", "not needed", reason)
    if not linear:
        return Advice("MLP head", "already no linear head; look at features and probe.lr", why)
    return Advice("MLP head", "try an MLP head: it can reach less energy", why, ("head=mlp",))


def backbone_advice(
    trail: Trail, morgan: float | None, upper: str | None, *, is_cut: bool
) -> Advice:
    """Whether to re-initialise the last stage (a partial backbone), the guide's last resort.

    Args:
        trail: what was seen.
        morgan: validation score of logistic regression on Morgan fingerprints; None where there
            are no molecules.
        upper: name of the last stage that could be cut at.
        is_cut: whether the backbone is partial already.
    """
    topic = "partial backbone"
    if morgan is None or trail.metric not in POOR:
        return Advice(topic, "not judged", "only scores of molecules have a baseline to judge by")
    best = max(seen["valid"] for seen in trail.looks.values())
    name = score_name(trail.metric)
    reason = (
        f"on validation Morgan fingerprints with logistic regression have {name} "
        f"{show(morgan, trail.metric)}, the best probed head {show(best, trail.metric)}"
    )
    if morgan - best <= GAP:
        return Advice(topic, "not needed", f"{reason}: the features carry the task")
    if trail.still_falls:
        return Advice(topic, "not judged; raise probe.epochs or probe.lr", _UNSETTLED)
    if is_cut or upper is None:
        return Advice(topic, "already in use, or nothing to cut", reason)
    advice = f"try last: re-initialise from stage {upper} on"
    return Advice(topic, advice, f"{reason}: only low-level features may carry", (f"cut={upper}",))


def batch_norm_advice(drift: float | None, *, batch_size: int, frozen: bool) -> Advice:
    """Whether batch norm should go on learning while finetuning.

    Args:
        drift: how far one pass in training mode moves features, as a share of their length; None
            where the backbone has no batch norm.
        batch_size: of finetuning.
        frozen: whether the config freezes it.
    """
    topic = "batch norm"
    if drift is None:
        return Advice(topic, "does not apply", "the backbone has none")
    seen = f"one pass over the training split moves features by {drift:.0%} without any training"
    if batch_size < SMALL_BATCH:
        reason = f"batches of {batch_size} have noisy statistics"
        return _batch_norm("frozen", reason, is_so=frozen)
    if drift > DRIFTS:
        return _batch_norm(
            "train", f"{seen}: pretraining's statistics do not fit", is_so=not frozen
        )
    reason = f"{seen}: live and frozen are nearly the same"
    return Advice(topic, "leave as it is", reason)


def _batch_norm(wanted: str, reason: str, *, is_so: bool) -> Advice:
    name = {"frozen": "frozen", "train": "live"}[wanted]
    changes = () if is_so else (f"finetune.batch_norm={wanted}",)
    return Advice("batch norm", f"keep it {name}" if is_so else f"set it {name}", reason, changes)


def balance_advice(rarest: float | None) -> Advice:
    """What the balance of classes means for reading energies.

    Args:
        rarest: share of the rarer answer among labels, the mean over targets; None for numbers.
    """
    topic = "class balance"
    if rarest is None:
        return Advice(topic, "does not apply", "targets are numbers")
    if rarest < RARE:
        reason = (
            f"the rarer answer has {rarest:.1%} of the labels, so energy mostly says how well the "
            "common one is fitted"
        )
        return Advice(topic, "read balanced energy beside energy in the run's summary", reason)
    return Advice(topic, "nothing to do", f"the rarer answer has {rarest:.1%} of the labels")
