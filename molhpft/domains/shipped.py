"""The encoders that come with this package: where they lie, and what replaced those of the past.

It imports nothing that takes long: the help of the command line names the default.
"""

from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "encoders"
"""Folder of the encoders: `<name>.safetensors`, its card, `.md`, and the molecules it has seen."""

DEFAULT_ENCODER = "gcn_structure"
"""Where a config, an estimator or a command starts from if it names no encoder."""

REPLACED: dict[str, str] = {"gcn_muv": "gcn_structure"}
"""Names of encoders that earlier versions shipped, each with the one that took its place."""


def shipped_encoders() -> list[str]:
    """Names of the encoders that come with this package."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def shipped_file(name: str) -> Path | None:
    """The weight file of a shipped encoder; None for a name that no version has shipped.

    Raises:
        FileNotFoundError: an earlier version shipped it; the message names its successor.
    """
    if name in shipped_encoders():
        return SHIPPED / f"{name}.safetensors"
    if name in REPLACED:
        raise FileNotFoundError(
            f"encoder {name} is not shipped any more; {REPLACED[name]} replaced it"
        )
    return None


def shipped_molecules(file: Path) -> Path | None:
    """The set of pretraining molecules beside a weight file of `SHIPPED`; None as for a card.

    Args:
        file: path of a weight file.
    """
    molecules = file.with_suffix(".molecules")
    return molecules if file.parent == SHIPPED and molecules.is_file() else None


def shipped_card(file: Path) -> Path | None:
    """The card beside a weight file of `SHIPPED`; None for any other file, or where there is none.

    Args:
        file: path of a weight file.
    """
    card = file.with_suffix(".md")
    return card if file.parent == SHIPPED and card.is_file() else None
