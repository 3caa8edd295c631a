"""The card of a model: what it is, what it scored, how to use it, what to know before sharing."""

from molhpft.core.objectives import Squared
from molhpft.domains.texts import listed
from molhpft.estimator.holdout import NAMED
from molhpft.estimator.shape import Shape
from molhpft.estimator.trust import Trust
from molhpft.experiments.folder import Json

_CARD = """---
library_name: molhpft
tags: [chemistry, molecules, graph-neural-network, transfer-learning]
---

# {task}

Predicts {kind} of {targets} from SMILES: molhpft's encoder `{encoder}` ({weights}), finetuned by
`{method}` after probing its head for tau epochs. Members of the ensemble: tau {taus}.

```python
from molhpft.estimator.model import Model

prediction = Model.from_pretrained("folder, or name on the hub").predict(["CCO"])
```

{scores}

A molecule less similar than {near:.2f} (Tanimoto, Morgan fingerprints) to
all of the {molecules:,} training molecules is outside the applicability domain. The training
molecules are part of the weight file: do not share a model whose molecules are secret.
{notes}"""
NAMES = {
    "rocauc": "ROC-AUC",
    "ap": "average precision",
    "ece_before": "calibration error before calibration",
    "ece": "calibration error",
    "in_domain": "molecules within the domain",
    "coverage": "coverage, within the domain",
    "set_size": "mean set size, within the domain",
    "rmse": "RMSE",
    "mae": "MAE",
    "spearman": "Spearman's correlation",
    "width": "width of the intervals, within the domain",
}


def model_card(shape: Shape, trust: Trust, about: Json, molecules: int) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        shape: of the model.
        trust: of the model.
        about: what training has written down.
        molecules: number of training molecules.
    """
    return _CARD.format(
        task=about["task"],
        kind="numbers" if isinstance(shape.objective, Squared) else "probabilities",
        targets=listed([f"`{name}`" for name in shape.value_names], most=NAMED),
        encoder=shape.encoder.name,
        weights=about["encoder_weights"],
        method=about["method"],
        taus=", ".join(str(member["tau"]) for member in about["members"]),
        scores=_scores(about["scores"]),
        near=trust.near,
        molecules=molecules,
        notes="".join(f"\n{note}\n" for note in (*about["promise"], *about["notes"])),
    )


def _scores(scores: Json) -> str:
    """A table with a line a number and a column a split."""
    splits = list(scores)
    names = list(dict.fromkeys(name for found in scores.values() for name in found))
    rows = [["", *splits], ["---", *["---:"] * len(splits)]]
    for name in names:
        rows.append([NAMES[name], *(score_text(scores[split].get(name)) for split in splits)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def score_text(value: float | None) -> str:
    """A number of `evaluated` as text."""
    return "-" if value is None else f"{value:.4f}"
