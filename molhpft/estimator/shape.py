"""What the networks of a model are: enough to build them and put their weights into."""

from dataclasses import dataclass
from typing import Any

from molhpft.core.network import Network
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.examples import ZERO_ONE
from molhpft.experiments.build import shaped_network
from molhpft.experiments.config import Choice, checked_choice, plain
from molhpft.experiments.folder import Json


@dataclass(frozen=True)
class Shape:
    """What the networks of a model are.

    Attributes:
        encoder: the backbone's entry of the catalog.
        head: the head's.
        cut: stage from which on the backbone counts as head, or None.
        targets: (t,), what each output is called.
        objective: what the outputs mean.
        classes: (t,), of a classification what the labels 0 and 1 of each target are called; empty
            where they are called so.
    """

    encoder: Choice
    head: Choice
    cut: str | None
    targets: tuple[str, ...]
    objective: Multilabel | Squared
    classes: tuple[tuple[str, str], ...] = ()

    @property
    def value_names(self) -> tuple[str, ...]:
        """(t,), what is predicted: a target, and whose probability where that is not 1's."""
        named = self.classes or (ZERO_ONE,) * len(self.targets)
        if isinstance(self.objective, Squared):
            return self.targets
        pairs = zip(self.targets, named, strict=True)
        return tuple(name if pair == ZERO_ONE else f"{name} p({pair[1]})" for name, pair in pairs)

    def network(self) -> Network:
        """A network of this shape, to load weights into."""
        return shaped_network(self.encoder, self.head, self.cut, outputs=len(self.targets))

    def to_json(self) -> Json:
        """All of it but where the encoder's weights came from, for a file and `shape_from`."""
        own = {"encoder": self.encoder, "head": self.head}
        choices = {key: {"name": c.name, **plain(c.options)} for key, c in own.items()}
        del choices["encoder"]["weights"]
        about: Json = {"cut": self.cut, "targets": list(self.targets)}
        if self.classes:
            about["classes"] = [list(pair) for pair in self.classes]
        return {**choices, **about, "objective": _KINDS[type(self.objective)], **_numbers(self)}


def shape_from(found: Json) -> Shape:
    """What gave this `to_json`.

    Raises:
        ValueError: an encoder or head that this version does not know.
        KeyError: something is missing.
    """
    own: Any = {"classification": Multilabel, "regression": Squared}[found["objective"]]
    numbers = {key: found[key] for key in ("metric", "mean", "std") if key in found}
    scale = {key: tuple(v) if isinstance(v, list) else v for key, v in numbers.items()}
    return Shape(
        checked_choice("encoder", found["encoder"]),
        checked_choice("head", found["head"]),
        found["cut"],
        tuple(found["targets"]),
        own(**scale),
        tuple((zero, one) for zero, one in found.get("classes", ())),
    )


def _numbers(shape: Shape) -> Json:
    objective = shape.objective
    if isinstance(objective, Squared):
        return {"mean": list(objective.mean), "std": list(objective.std)}
    return {"metric": objective.metric}


_KINDS = {Multilabel: "classification", Squared: "regression"}
