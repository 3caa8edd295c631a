"""Every method, as data: the phases to run one after the other.

Each recipe begins with a head phase of `tau` epochs (0 for methods that do not probe). `probe` and
`finetune` are templates: how a head, and then everything, is trained where a method does not say.
"""

from dataclasses import dataclass, replace

from molhpft.tuning.phase import Phase


@dataclass(frozen=True)
class Recipe:
    """A method with its numbers filled in.

    Attributes:
        probe: the head phase that comes first; its epochs are tau.
        after: the phases that follow, each with a fresh optimizer.
        pretrained: whether the backbone starts from the encoder's weights or from random ones.
    """

    probe: Phase
    after: tuple[Phase, ...]
    pretrained: bool = True

    @property
    def tau(self) -> int:
        """Epochs of head probing before anything else is trained."""
        return self.probe.epochs


def scratch(probe: Phase, finetune: Phase) -> tuple[Recipe, ...]:
    """Train everything from random weights: what pretraining has to beat."""
    return (Recipe(replace(probe, epochs=0), (finetune,), pretrained=False),)


def ft(probe: Phase, finetune: Phase) -> tuple[Recipe, ...]:
    """Plain finetuning behind a random head (HP0-FT)."""
    return hp_ft(probe, finetune, tau=(0,))


def lp(probe: Phase, finetune: Phase) -> tuple[Recipe, ...]:
    """Linear probing: the head alone, for all epochs of `probe`."""
    return (Recipe(probe, ()),)


def lp_ft(probe: Phase, finetune: Phase) -> tuple[Recipe, ...]:
    """Linear probing for all epochs of `probe`, then finetuning (Kumar et al., 2022)."""
    return hp_ft(probe, finetune, tau=(probe.epochs,))


def hp_ft(probe: Phase, finetune: Phase, *, tau: tuple[int, ...]) -> tuple[Recipe, ...]:
    """Head probing stopped after `tau` epochs, then finetuning (Ren et al., 2023).

    Returns:
        a recipe for each tau; they share one probe.

    Raises:
        ValueError: `tau` is empty or names a number twice.
    """
    if not tau or len(set(tau)) < len(tau):
        raise ValueError(f"tau lists at least one number of epochs, each once, got {list(tau)}")
    return tuple(Recipe(replace(probe, epochs=epochs), (finetune,)) for epochs in tau)


def ls_hp_ft(
    probe: Phase, finetune: Phase, *, tau: tuple[int, ...], smoothing: float = 0.1
) -> tuple[Recipe, ...]:
    """HP-FT with label smoothing while probing only, which reserves energy even at large tau."""
    return hp_ft(replace(probe, smoothing=smoothing), finetune, tau=tau)
