"""A model in the terminal: what it was made of, what it scores, how far it can be trusted."""

from rich.table import Table
from rich.text import Text

from molhpft.core.objectives import Squared
from molhpft.domains.texts import listed
from molhpft.estimator.card import NAMES, score_text
from molhpft.estimator.holdout import NAMED
from molhpft.estimator.model import Model


def model_tables(model: Model) -> list[Table]:
    """What was learned from what, then the scores of every held-out split."""
    about, shape = model.about, model.shape
    kind = "regression" if isinstance(shape.objective, Squared) else "classification"
    made = Table(title=Text(about["task"], style="table.title"), show_header=False)
    made.title_justify = "left"
    for key, value in (
        ("task", kind),
        ("targets", listed(shape.value_names, most=NAMED)),
        *((f"{split} molecules", f"{size:,}") for split, size in about["sizes"].items()),
        ("encoder", f"{shape.encoder.name}, {about['encoder_weights']}"),
        ("head", shape.head.name),
        ("tau", str(about["chosen_tau"])),
        ("members", ", ".join(f"tau {member['tau']}" for member in about["members"])),
        ("near training from", f"similarity {model.trust.near:.2f}"),
    ):
        made.add_row(key, Text(value))
    scores = Table(title="held-out molecules", title_justify="left")
    scores.add_column("")
    for split in about["scores"]:
        scores.add_column(split, justify="right")
    for name in next(iter(about["scores"].values())):
        found = (row.get(name) for row in about["scores"].values())
        scores.add_row(NAMES[name], *(score_text(value) for value in found))
    return [made, scores]
