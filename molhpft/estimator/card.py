"""What people read of a model: its card on hubs, its members and its scores as text."""

from collections.abc import Sequence
from statistics import stdev
from typing import TYPE_CHECKING

from molhpft.core.metrics import show, show_number
from molhpft.core.objectives import Squared
from molhpft.domains.files import Json, listed
from molhpft.estimator.coverage import NAMED
from molhpft.measure.uncertainty import Calibration, Temperature

if TYPE_CHECKING:
    from molhpft.estimator.calibrate import Uncertainty
    from molhpft.estimator.model import Model

_CARD = """---
library_name: molhpft
tags: [chemistry, molecules, graph-neural-network, transfer-learning]
---

# {task}

Predicts {kind} of {targets} from SMILES{how}.
Members that answer together: {members}.
{calibrated}
```python
from molhpft.estimator import Model

prediction = Model.from_pretrained("folder, or name on the hub").predict(["CCO"])
```

{scores}

A molecule less similar than {threshold:.2f} (Tanimoto, Morgan fingerprints) to
all of the {molecules:,} training molecules is outside the applicability domain. The training
molecules are part of the weight file: do not share a model whose molecules are secret.
{notes}"""

SCORE_NAMES = {
    "rocauc": "ROC-AUC",
    "ap": "average precision",
    "ece_before": "calibration error of the members alone",
    "ece": "calibration error",
    "in_domain": "molecules within the domain",
    "coverage": "coverage, within the domain",
    "set_size": "mean set size, within the domain",
    "rmse": "RMSE",
    "mae": "MAE",
    "spearman": "Spearman's correlation",
    "width": "width of the intervals, within the domain",
}


def model_card(model: "Model") -> str:
    """Markdown with the front matter that model hubs read."""
    spec, about = model.spec, model.about
    header, *rows = score_rows(about)
    lines = [["", *header], ["---", *["---:"] * len(header)], *rows]
    return _CARD.format(
        task=about["task"],
        kind="numbers" if isinstance(spec.objective, Squared) else "probabilities",
        targets=listed([f"`{name}`" for name in spec.value_names], most=NAMED),
        how=_how(model),
        members=", ".join(members_in_words(about["members"])),
        calibrated=(
            f"Probabilities are calibrated by {calibration_in_words(model.uncertainty)}.\n"
            if model.uncertainty.calibration
            else ""
        ),
        scores="\n".join(f"| {' | '.join(line)} |" for line in lines),
        threshold=model.uncertainty.domain_threshold,
        molecules=len(model.training_smiles),
        notes="".join(f"\n{note}\n" for note in sentences(about)),
    )


def _how(model: "Model") -> str:
    """What the answers have of an encoder: nothing, its frozen features, or its finetuned self."""
    if not model.reads_encoder:
        return ""
    about = model.about
    encoder = f", with molhpft's encoder `{model.spec.encoder.name}` ({about['encoder_weights']})"
    return f"{encoder}, finetuned by `{about['method']}`" if model.networks else encoder


def sentences(about: Json) -> list[str]:
    """What a model's numbers do not say: what its sets guarantee, what was found in the data."""
    file = about.get("held_out")
    where = (
        f"The folder in which it was made has {file}: each molecule of the table with its label "
        "and what members say of it that did not train on it."
    )
    return [*_chosen(about), *about["coverage"], *about["notes"], *([where] if file else [])]


def _chosen(about: Json) -> list[str]:
    """A sentence on what the molecules that score have chosen; none where they chose nothing."""
    scored = "the folds" if about["folds"] else "valid"
    chosen = []
    if len(about["members"]) > 1:
        chosen.append("these molecules chose the members and their weights")
    elif about.get("tau_is_chosen"):
        which = "those of the first fold" if about["folds"] else "these molecules"
        chosen.append(f"{which} chose tau")
    if about.get("weights_are_chosen"):
        which = "those of each fold" if about["folds"] else "these molecules"
        chosen.append(f"{which} chose an epoch of its network, or a mixture")
    if not chosen:
        return []
    return [
        f"Scores on {scored} are by members that did not train on the molecule; yet "
        f"{', and '.join(chosen)}, which test molecules do not."
    ]


def calibration_in_words(uncertainty: "Uncertainty") -> str:
    """The calibration, and what it was chosen from: "platt (log loss 0.41, venn_abers 0.42)"."""
    calibration, losses = uncertainty.calibration, dict(uncertainty.log_losses)
    if calibration is None or _keeps_all(calibration):
        return "none"
    if calibration.name not in losses:
        return calibration.name
    own = losses.pop(calibration.name)
    others = "".join(f", {name} {loss:.4f}" for name, loss in losses.items())
    return f"{calibration.name} (log loss {own:.4f}{others})"


def _keeps_all(calibration: Calibration) -> bool:
    return isinstance(calibration, Temperature) and bool((calibration.temperatures == 1).all())


def members_in_words(members: Sequence[Json]) -> list[str]:
    """Members that have a weight, the heaviest first: "networks, tau 20 (weight 0.60)"."""
    used = sorted((m for m in members if m["weight"]), key=lambda m: -m["weight"])
    if len(used) == 1:
        return [used[0]["name"]]
    return [f"{member['name']} (weight {member['weight']:.2f})" for member in used]


def alone(model: "Model") -> str:
    """A sentence where one kernel model answers, and no network does; empty where networks do."""
    members = model.about["members"]
    used = [member for member in members if member["weight"]]
    if len(used) != 1 or model.networks:
        return ""
    others = "" if len(members) == 1 else ": nothing else adds to it on the molecules that choose"
    return f"This model is one Gaussian process ({used[0]['name']}){others}."


def member_score(member: Json, metric: str) -> str:
    """Its score on the molecules that choose, with the standard deviation over folds."""
    shown = show(member["valid"], metric)
    folds = [score for score in member["folds"] if score is not None]
    return f"{shown} ± {show(stdev(folds), metric)}" if len(folds) > 1 else shown


def score_rows(about: Json) -> list[list[str]]:
    """The names of the splits, then for each score its name and its value on each of them.

    What folds cannot test, since it was fitted to them, is left out where no other split tests it.

    Args:
        about: of a model: `scores` by split, of `held_out_scores`, and how many `folds` chose;
            "valid" is then what members say of folds that are new to them.
    """
    scores, folds = about["scores"], about["folds"]
    names = dict.fromkeys(name for row in scores.values() for name in row)
    values = {name: [row.get(name) for row in scores.values()] for name in names}
    for name in ("coverage", "ece_before", "ece") if folds else ():
        if not any(x is not None for x in values.get(name, ())):
            values.pop(name, None)
    return [
        ["folds" if folds and split == "valid" else split for split in scores],
        *(
            [SCORE_NAMES[name], *("-" if x is None else show_number(x) for x in row)]
            for name, row in values.items()
        ),
    ]
