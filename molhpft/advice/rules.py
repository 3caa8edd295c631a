"""Advice of the paper's user guide (section 5), each piece with its reason, from what was seen.

Beside the rules stand the results of Ren et al. (2023) that count for and against them: validation
accuracies in percent; the paper gives no deviations. Table 5's last column of cuts is left out: it
is printed equal to the column of the MLP head.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from molhpft.core.metrics import comparable, score_name, show
from molhpft.domains.files import Json
from molhpft.run.probe_curve import (
    BANDS,
    HIGH,
    SMOOTHING,
    Expectation,
    ProbeCurve,
    has_too_little_energy,
    plateaus,
    wanted_taus,
)


@dataclass(frozen=True)
class Case:
    """One setting, finetuned without and with a change.

    Attributes:
        name: downstream set <- pretraining, or table and downstream set.
        fit: training accuracy that a long probe of the unchanged head reaches.
        without: validation accuracy after finetuning, without the change.
        with_it: the same with the change.
    """

    name: str
    fit: float
    without: float
    with_it: float

    @property
    def helped(self) -> bool:
        """Whether the change validates better."""
        return self.with_it > self.without


# lsHP200-FT against HP200-FT: the same 200 epochs of probing with and without label smoothing
SMOOTHING_CASES = (
    Case("Flowers <- MoCo", 59.711, 84.882, 86.946),
    Case("Flowers <- ImageNet", 85.826, 91.653, 92.746),
    Case("Flowers <- CIFAR10", 7.031, 43.973, 42.299),
    Case("STL10 <- MoCo", 91.889, 96.363, 96.639),
    Case("STL10 <- ImageNet", 96.291, 97.374, 97.959),
    Case("STL10 <- CIFAR10", 75.181, 84.778, 85.912),
    Case("CIFAR100 <- MoCo", 56.397, 83.744, 83.412),
    Case("CIFAR100 <- ImageNet", 62.709, 84.347, 85.357),
    Case("CIFAR100 <- CIFAR10", 11.735, 63.992, 65.244),
    Case("Tox21 <- PCBA", 79.121, 79.666, 83.853),
    Case("Table 2, STL10 <- SimCLR", 96.875, 93.914, 94.304),
    Case("Table 2, STL10 <- supervised", 100.0, 97.581, 97.920),
)

# HP-FT at its best tau against the better of both ends, HP0-FT and HP200-FT (Table 1)
TAU_CASES = (
    Case("Flowers <- MoCo", 59.711, 84.882, 86.831),
    Case("Flowers <- ImageNet", 85.826, 91.653, 92.299),
    Case("Flowers <- CIFAR10", 7.031, 60.714, 63.711),
    Case("STL10 <- MoCo", 91.889, 96.363, 96.753),
    Case("STL10 <- ImageNet", 96.291, 97.452, 97.697),
    Case("STL10 <- CIFAR10", 75.181, 86.811, 87.739),
    Case("CIFAR100 <- MoCo", 56.397, 83.744, 83.814),
    Case("CIFAR100 <- ImageNet", 62.709, 84.736, 84.971),
    Case("CIFAR100 <- CIFAR10", 11.735, 65.608, 65.966),
    Case("Tox21 <- PCBA", 79.121, 81.274, 83.263),
)

# Tables 5 to 8, one pretraining each: training accuracy of a long probe, then validation accuracy
# with a linear head, with an MLP head, and with the last block re-initialised as part of the head
_HEADS = (
    ("Table 5, Real", 98.994, 54.839, 53.856, 53.629),
    ("Table 5, Sketch", 63.369, 37.789, 35.446, 35.966),
    ("Table 5, Quick", 48.555, 61.416, 59.199, 61.568),
    ("Table 6, Real", 60.039, 58.846, 58.770, 59.929),
    ("Table 6, Sketch", 39.092, 45.023, 43.171, 42.882),
    ("Table 6, Quick", 51.855, 61.593, 60.307, 59.602),
    ("Table 7, Real", 96.875, 85.685, 85.031, 84.929),
    ("Table 7, Sketch", 85.938, 72.510, 69.651, 69.734),
    ("Table 7, Quick", 64.063, 69.531, 66.683, 68.422),
    ("Table 8, Real", 92.676, 78.075, 78.453, 78.528),
    ("Table 8, Sketch", 78.213, 61.545, 63.773, 65.683),
    ("Table 8, Quick", 64.307, 59.703, 63.609, 67.011),
)
MLP_CASES = tuple(Case(name, fit, linear, mlp) for name, fit, linear, mlp, _ in _HEADS)
CUT_CASES = tuple(Case(name, fit, linear, cut) for name, fit, linear, _, cut in _HEADS)


def score_of(cases: Iterable[Case]) -> str:
    """How often a change helped, such as "3 of 12"."""
    cases = tuple(cases)
    return f"{sum(case.helped for case in cases)} of {len(cases)}"


# Morgan fingerprints better than learned features by more than this say that only low-level
# features transfer; shares of a score, our reading
GAP = 0.02
# "less than 50 % training accuracy", where section 5.1 of the paper has an MLP head
POOR = 50
# below this, statistics of a batch are too noisy to normalise with (Wu and He, 2018, Figure 1)
SMALL_BATCH = 16
# features that move by more than this share of their length without any training: our reading
DRIFTS = 0.1
# a label this much rarer than 1 / K, its share among K equally common ones, is outweighed in loss
# and energy (of HIV's two labels the rarer has 3.5 %, 0.07 times 1 / 2): our reading
RARE = 0.2
_YAML = set(" ,:#'\"{}[]&*!|>%@`?")  # that mean something in YAML
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


def encoder_advice(ranking: Json, own: str | None) -> Advice:
    """Which of some encoders to start from: the one whose linear probe validates best.

    Args:
        ranking: what `rank` returns.
        own: weights of the config's encoder; None for random ones.
    """
    best, *others = ranking["encoders"]
    metric = ranking["metric"]
    listed = [f"{row['name']} {show(row['probe'], metric)}" for row in (best, *others)]
    reason = f"{score_name(metric)} of a linear probe on validation: {', '.join(listed)}"
    if best["weights"] == own:
        return Advice("encoder", "keep it", reason)
    change = encoder_change(best["weights"])
    return Advice("encoder", f"start from {best['name']}", reason, (change,))


def encoder_change(weights: str) -> str:
    """The change of a config to the encoder of some weights, for `--set`."""
    return f"encoder={{weights: {json.dumps(weights) if set(weights) & _YAML else weights}}}"


def tau_advice(
    curve: ProbeCurve,
    candidates: Sequence[int],
    base_rate: float | None,
    *,
    names_tau: bool,
    expects: Expectation | None = None,
) -> Advice:
    """Which taus to compare: evenly spaced in energy, of those that the expected adaptation wants.

    They stop where the head fits its training split.

    Args:
        curve: what was seen.
        candidates: evenly spaced in energy along it, rising.
        base_rate: energy of a head that knows nothing but how common the labels are.
        names_tau: whether the config's method has a tau to set.
        expects: how much the features are expected to change; None for no idea.
    """
    last = curve.longest if curve.saturation is None else curve.saturation
    even = [tau for tau in candidates if tau <= last]
    reason = (
        f"energy falls from {curve.energies[0]:.3f} at tau 0 to {curve.energies[last]:.3f} at tau "
        f"{last}; "
    )
    if len(even) < 2:
        return Advice("tau", "raise probe.epochs or probe.lr: no tau differs from 0", reason[:-2])
    taus = wanted_taus(curve, even, expects)
    if expects is None:
        reason += (
            "these taus part it evenly, since a tau between both ends validated better than either "
            f"in {score_of(TAU_CASES)} settings of the paper's Table 1"
        )
    else:
        shares = " and ".join(
            f"{curve.share(tau):.0%}" for tau in dict.fromkeys((taus[0], taus[-1]))
        )
        reason += f"for {expects} adaptation these keep {shares} of it"
    if curve.saturation is not None and last < curve.longest:
        reason += f"; from tau {last} on the training split is fitted and little energy is left"
    reason += _against_base_rate(curve, taus, base_rate)
    listed = ", ".join(map(str, taus))
    if len(taus) == 1:
        advice = f"take tau {listed}"
    elif expects is None:
        advice = f"compare tau {listed}, or let validation choose among them (tau: auto)"
    else:
        advice = f"compare tau {listed}"
    change = f"method.tau=[{listed}]" if names_tau else f"method={{name: hp_ft, tau: [{listed}]}}"
    return Advice("tau", advice, reason, (change,))


def _against_base_rate(curve: ProbeCurve, taus: Sequence[int], base_rate: float | None) -> str:
    if base_rate is None:
        return ""
    learned = [tau for tau in taus if curve.energies[tau] < base_rate]
    if learned:
        return f"; from tau {learned[0]} on the head knows more than how common the labels are"
    return (
        f"; a head that only knows how common the labels are has {base_rate:.3f}, so none of "
        "these has learned much more"
    )


def smoothing_advice(
    curve: ProbeCurve, *, smoothed: bool, expects: Expectation | None = None
) -> Advice:
    """Whether to smooth labels while probing (lsHP)."""
    topic = "label smoothing"
    if curve.metric not in HIGH:
        return Advice(topic, "does not apply", "targets are numbers or the score is a loss")
    why = has_too_little_energy(curve)
    if smoothed:
        return Advice(topic, "already in use", f"probing leaves {curve.left:.0%} of the energy")
    if why is None:
        reason = (
            f"tau {curve.longest} still leaves {curve.left:.0%} of the random head's energy; all "
            f"the same smoothing helped in {score_of(_fitting(below=True))} such settings of the "
            "paper"
        )
        return Advice(topic, "not called for, but may be compared", reason)
    if expects == "tiny":
        return Advice(topic, "not needed", f"{why}, which is what tiny adaptation wants")
    reason = (
        f"{why}: too little energy is left, unless a smaller tau is taken; in the paper smoothing "
        f"helped in {score_of(_fitting(below=False))} settings whose head fitted 90 % and more"
    )
    change = (f"method={{name: ls_hp_ft, tau: [{curve.longest}], smoothing: {SMOOTHING}}}",)
    return Advice(topic, "try lsHP-FT, which reserves energy, or a smaller tau", reason, change)


def head_advice(curve: ProbeCurve, *, linear: bool, expects: Expectation | None = None) -> Advice:
    """Whether to compare an MLP head: where less energy is wanted than a linear one can give.

    The paper contradicts itself on when that helps. Section 5.1 asks for less than 50 % training
    accuracy, section 5.3 for a linear head that plateaus (its cases stop at 93 and 78 %), and in
    Tables 5 to 8 no training accuracy parts the settings where it helped from those where it hurt.
    So a plateau makes an MLP head worth a comparison, and the reason says how the tables stand.
    """
    topic = "MLP head"
    if curve.metric not in HIGH:
        return Advice(
            topic, "not judged", f"the paper's tables are of accuracy, not {curve.metric}"
        )
    if expects == "strong":
        return Advice(
            topic, "not needed", "strong adaptation lives on energy; an MLP head has less"
        )
    too_little, why = has_too_little_energy(curve), plateaus(curve)
    if too_little and (why is None or expects != "tiny"):
        return Advice(topic, "not needed", f"{too_little}: little energy is left already")
    if why is None:
        return Advice(topic, "not judged; raise probe.epochs or probe.lr", _UNSETTLED)
    if not linear:
        return Advice(topic, "already no linear head; see partial backbone", why)
    wanted = f"{expects} adaptation" if expects else "little energy"
    reason = (
        f"{why}. {_mlp_record()}. With a small tau it only prolongs the first phase of finetuning"
    )
    advice = f"compare an MLP head, probed long, if {wanted} is wanted"
    return Advice(topic, advice, reason, ("head=mlp",))


def backbone_advice(
    curve: ProbeCurve,
    morgan: float | None,
    upper: str | None,
    *,
    is_cut: bool,
    linear: bool = True,
    expects: Expectation | None = None,
) -> Advice:
    """Whether to re-initialise the last stage (a partial backbone), the guide's last resort.

    Where only low-level features carry, which a baseline on fingerprints shows; and where energy is
    too big even with an MLP head: only the lower layers are copied then.

    Args:
        curve: what was seen.
        morgan: validation score of a random forest on Morgan counts; None where there
            are no molecules.
        upper: name of the last stage that could be cut at.
        is_cut: whether the backbone is partial already.
        linear: whether the head is.
        expects: how much the features are expected to change; None for no idea.
    """
    topic = "partial backbone"
    compared, behind = "", False
    if morgan is not None:
        best = max(comparable(row["valid"]) for row in curve.rows.values())
        compared = (
            "on validation a random forest on Morgan counts has "
            f"{score_name(curve.metric)} {show(morgan, curve.metric)}, the best probed head "
            f"{show(best, curve.metric)}"
        )
        behind = curve.metric in HIGH and morgan - best > GAP
    judged = morgan is not None and curve.metric in HIGH
    most = BANDS[expects or "mild"][1]
    too_big = plateaus(curve) if not linear and curve.left > most else None
    if not judged and too_big is None:
        reason = "only scores of molecules have a baseline to judge features by"
        if morgan is not None:
            reason = f"the threshold is one of percentages, not of {score_name(curve.metric)}"
        return Advice(topic, "not judged", reason)
    if not behind and too_big is None:
        return Advice(topic, "not needed", f"{compared}: the features carry the task")
    # a head that fits its training split is at its best, however energy falls
    if curve.still_falls and curve.saturation is None:
        return Advice(topic, "not judged; raise probe.epochs or probe.lr", _UNSETTLED)
    if behind:
        reason = f"{compared}: only low-level features may carry"
    else:
        reason = f"{too_big}, too much for {expects or 'mild'} adaptation even with an MLP head"
    if is_cut or upper is None:
        return Advice(topic, "already in use, or nothing to cut", reason)
    reason += f". In the paper's Tables 5 to 8 this helped in {score_of(CUT_CASES)} settings"
    advice = f"try last: copy the lower layers only, re-initialise from stage {upper} on"
    return Advice(topic, advice, reason, (f"cut={upper}",))


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
    moved = f"one pass over the training split moves features by {drift:.0%} without any training"
    if batch_size < SMALL_BATCH:
        wanted, reason = "frozen", f"batches of {batch_size} have noisy statistics"
    elif drift > DRIFTS:
        wanted, reason = "train", f"{moved}: pretraining's statistics do not fit"
    else:
        return Advice(topic, "leave as it is", f"{moved}: live and frozen are nearly the same")
    name = {"frozen": "frozen", "train": "live"}[wanted]
    if frozen == (wanted == "frozen"):
        return Advice(topic, f"keep it {name}", reason)
    return Advice(topic, f"set it {name}", reason, (f"finetune.batch_norm={wanted}",))


def balance_advice(rarest: float | None, *, classes: int = 2) -> Advice:
    """What the balance of classes means for reading energies.

    Args:
        rarest: share of the rarer label among labels, the mean over targets, or of the rarest of
            all classes; None for numbers.
        classes: number K of possible labels.
    """
    topic = "class balance"
    if rarest is None:
        return Advice(topic, "does not apply", "targets are numbers")
    which = "the rarer label" if classes == 2 else f"the rarest of {classes} classes"
    reason = (
        f"{which} has a share of {rarest:.1%}, where equally common ones have {1 / classes:.1%}"
    )
    if rarest * classes < RARE:
        reason += ", so energy mostly says how well the common ones are fitted"
        return Advice(topic, "read balanced energy beside energy in the run's summary", reason)
    return Advice(topic, "nothing to do", reason)


def _fitting(*, below: bool) -> list[Case]:
    """The paper's cases of smoothing whose head fits less than 90 %, or that and more."""
    return [case for case in SMOOTHING_CASES if (case.fit < 100 * HIGH["accuracy"]) == below]


def _mlp_record() -> str:
    """How the paper's Tables 5 to 8 stand on MLP heads."""
    *stops, last = [f"{case.fit:.0f}" for case in MLP_CASES if case.helped]
    poor = [case for case in MLP_CASES if case.fit < POOR]
    hurt = sum(not case.helped for case in poor)
    return (
        f"In the paper's Tables 5 to 8 an MLP head helped in {score_of(MLP_CASES)} settings, all "
        f"of one pretraining, whose linear heads stopped at {', '.join(stops)} and {last} %; it "
        f"hurt in the others, {hurt} of {len(poor)} below {POOR} % among them, where section 5.1 "
        "advises it"
    )
