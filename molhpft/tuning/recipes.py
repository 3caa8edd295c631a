"""Every method, as data: how a head is prepared, and the phases that follow.

Each recipe begins with a head phase of `tau` epochs (0 for methods that do not probe). `probe` and
`finetune` are templates: how a head, and then everything, is trained where a method does not say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from annotated_types import Interval

from molhpft.core.annotations import (
    BelowOne,
    Count,
    Decay,
    Fraction,
    NonNegative,
    Positive,
    Whole,
)
from molhpft.tuning.phase import Phase

INVERSE_PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
Tau = tuple[Whole, ...] | Literal["auto"]
Repeats = Annotated[int, Interval(ge=1, le=1_000)]
ULMFIT_DECAY = 1 / 2.6
Soup = Literal["uniform", "greedy"]
ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class AuxiliaryTask:
    """A pretraining task that goes on being served while finetuning.

    Attributes:
        task: its name in the catalog.
        weight: of its loss beside that of the new task.
        options: of the task.
    """

    task: str
    weight: float
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageMixing:
    """How mixing weights are learned on validation, one for each stage.

    Attributes:
        steps: of gradient descent.
        lr: its learning rate.
    """

    steps: int
    lr: float


@dataclass(frozen=True)
class Recipe:
    """A method with its numbers filled in.

    Attributes:
        probe: the head phase that comes first; its epochs are tau.
        after: the phases that follow, each with a fresh optimizer.
        pretrained: whether the backbone starts from the encoder's weights or from random ones.
        inverse_penalties: inverse penalties to choose from when the head is solved, not trained.
        alphas: of the finetuned weights to choose from in the mixture that the method ends with.
        stage_mixing: how a mixture with a mixing weight for each stage is found, which the method
            ends with; None for none.
        soup: how the networks of all recipes of a run are averaged into the one that it ends with,
            see `tuning/soup.py`; None ends with the network that validates best.
        repeat: number of this finetuning among those from the same head, which differ in the order
            of examples and in what dropout drops.
        side: whether the backbone is frozen beside a trainable copy.
        keeps_head: whether the head starts from the one in the encoder's weight file.
        contrast: whether classes are learned by contrast instead of cross-entropy.
        auxiliary: the pretraining task that training goes on serving.
        chooses: whether tau is still to be chosen, among 0 and the epochs of `probe`.
    """

    probe: Phase
    after: tuple[Phase, ...]
    pretrained: bool = True
    inverse_penalties: tuple[float, ...] = ()
    alphas: tuple[float, ...] = ()
    stage_mixing: StageMixing | None = None
    soup: Soup | None = None
    repeat: int = 0
    side: bool = False
    keeps_head: bool = False
    contrast: bool = False
    auxiliary: AuxiliaryTask | None = None
    chooses: bool = False

    @property
    def tau(self) -> int:
        """Epochs of head probing before anything else is trained."""
        return self.probe.epochs

    @property
    def reported_tau(self) -> int | None:
        """Tau as results have it: None for a head that is solved or kept, from no random one."""
        return None if self.inverse_penalties or self.keeps_head else self.tau

    @property
    def chooses_weights(self) -> bool:
        """Whether weights are chosen on validation, or learned there: an epoch's, or a mixture."""
        watched = any(phase.watches_validation for phase in (self.probe, *self.after))
        several = len(self.inverse_penalties) > 1 or len(self.alphas) > 1
        return watched or several or self.stage_mixing is not None or self.soup == "greedy"

    @property
    def key(self) -> str:
        """A name that no other finetuning of the same run has."""
        smoothing = f"-smoothing{self.probe.smoothing:g}" if self.probe.smoothing else ""
        repeat = f"-repeat{self.repeat}" if self.repeat else ""
        return f"tau{self.tau}{smoothing}{repeat}"

    @property
    def stream(self) -> str:
        """What the random numbers of its finetuning are for, see `seed_for`."""
        return f"finetune, repeat {self.repeat}" if self.repeat else "finetune"


Recipes = tuple[Recipe, ...]


def scratch(probe: Phase, finetune: Phase) -> Recipes:
    """Train everything from random weights: what pretraining has to beat."""
    return (Recipe(replace(probe, epochs=0), (finetune,), pretrained=False),)


def ft(probe: Phase, finetune: Phase) -> Recipes:
    """Plain finetuning behind a random head (HP0-FT)."""
    return hp_ft(probe, finetune, tau=(0,))


def zero_shot(probe: Phase, finetune: Phase) -> Recipes:
    """No training: the encoder behind the head that its weight file has, for the same outputs.

    What FLYP and WiSE-FT begin with where classes have texts; here the head is that of the
    pretraining, or of a run whose classes these are.
    """
    return (Recipe(replace(probe, epochs=0), (), keeps_head=True),)


def lp(probe: Phase, finetune: Phase) -> Recipes:
    """Linear probing: the head alone, for all epochs of `probe`."""
    return (Recipe(probe, ()),)


def lp_logistic(
    probe: Phase, finetune: Phase, *, inverse_penalties: tuple[Positive, ...] = INVERSE_PENALTIES
) -> Recipes:
    """Linear probing solved: logistic regression, its penalty chosen on validation."""
    return (
        Recipe(
            replace(probe, epochs=0),
            (),
            inverse_penalties=_some("inverse_penalties", inverse_penalties),
        ),
    )


def lp_ft(probe: Phase, finetune: Phase) -> Recipes:
    """Linear probing for all epochs of `probe`, then finetuning (Kumar et al., 2022)."""
    return hp_ft(probe, finetune, tau=(probe.epochs,))


def lp_ft_converged(
    probe: Phase, finetune: Phase, *, inverse_penalties: tuple[Positive, ...] = INVERSE_PENALTIES
) -> Recipes:
    """LP-FT from the head that probing would converge to: logistic regression, then finetuning."""
    (solved,) = lp_logistic(probe, finetune, inverse_penalties=inverse_penalties)
    return (replace(solved, after=(finetune,)),)


def hp_ft(probe: Phase, finetune: Phase, *, tau: Tau) -> Recipes:
    """Head probing stopped after `tau` epochs, then finetuning (Ren et al., 2023).

    Args:
        probe: template of the head phase; its epochs are the largest tau that "auto" may choose.
        finetune: template of the finetuning phase.
        tau: epochs of head probing, or "auto" to have them chosen (`tuning/halving.py`).

    Returns:
        a recipe for each tau, which share one probe; for "auto" one that is still to be settled.

    Raises:
        ValueError: `tau` is empty or names a number twice, or leaves nothing to choose by.
    """
    if isinstance(tau, str):
        if not probe.epochs or not finetune.epochs:
            raise ValueError(
                "tau: auto chooses among 0 to probe.epochs by short finetunings, and needs at "
                f"least 1 epoch of each; got probe.epochs {probe.epochs} and finetune.epochs "
                f"{finetune.epochs}"
            )
        return (Recipe(probe, (finetune,), chooses=True),)
    if not tau or len(set(tau)) < len(tau):
        raise ValueError(f"tau lists at least one number of epochs, each once, got {list(tau)}")
    return tuple(Recipe(replace(probe, epochs=epochs), (finetune,)) for epochs in tau)


def ls_hp_ft(probe: Phase, finetune: Phase, *, tau: Tau, smoothing: BelowOne = 0.1) -> Recipes:
    """HP-FT with label smoothing while probing only, which reserves energy even at large tau."""
    return hp_ft(replace(probe, smoothing=smoothing), finetune, tau=tau)


def ls_everywhere(probe: Phase, finetune: Phase, *, tau: Tau, smoothing: BelowOne = 0.1) -> Recipes:
    """HP-FT with the same smoothing in both phases: the energy it reserved is gone again."""
    return ls_hp_ft(probe, replace(finetune, smoothing=smoothing), tau=tau, smoothing=smoothing)


def opposite_energy(
    probe: Phase, finetune: Phase, *, tau: Tau, smoothing: BelowOne = 0.1
) -> Recipes:
    """HP-FT with smoothing while finetuning only: the energy points away from the labels."""
    return hp_ft(probe, replace(finetune, smoothing=smoothing), tau=tau)


def l2_sp(
    probe: Phase,
    finetune: Phase,
    *,
    tau: Tau = (0,),
    anchor: NonNegative = 0.01,
    head_penalty: NonNegative = 0.0,
) -> Recipes:
    """HP-FT pulled towards the pretrained weights (Li et al., 2018).

    Args:
        probe: template of the head phase.
        finetune: template of the finetuning phase.
        tau: epochs of head probing.
        anchor: their alpha, which pulls the backbone to where it started.
        head_penalty: their beta, which pulls the head to 0.
    """
    return hp_ft(probe, replace(finetune, anchor=anchor, head_penalty=head_penalty), tau=tau)


def delta(
    probe: Phase, finetune: Phase, *, tau: Tau = (0,), stage_anchor: NonNegative = 0.01
) -> Recipes:
    """HP-FT that keeps what every stage gives near the start's (DELTA, Li et al., 2019).

    Their behavioural penalty with every channel weighing the same, without their attention.
    """
    return hp_ft(probe, replace(finetune, stage_anchor=stage_anchor), tau=tau)


def feature_distillation(
    probe: Phase, finetune: Phase, *, tau: Tau = (0,), feature_anchor: NonNegative = 0.01
) -> Recipes:
    """HP-FT that keeps the features near those of the encoder as it was.

    Learning without forgetting (Li and Hoiem, 2016) by hints (Romero et al., 2015): features stand
    in for the old task's outputs, whose head an encoder's file seldom has.
    """
    return hp_ft(probe, replace(finetune, feature_anchor=feature_anchor), tau=tau)


def bss(
    probe: Phase, finetune: Phase, *, tau: Tau = (0,), spectral_shrinkage: NonNegative = 0.001
) -> Recipes:
    """HP-FT with batch spectral shrinkage (Chen et al., 2019).

    It suppresses the directions of the features that hardly vary, which transfer worst.
    """
    return hp_ft(probe, replace(finetune, spectral_shrinkage=spectral_shrinkage), tau=tau)


def gtot(
    probe: Phase, finetune: Phase, *, tau: Tau = (0,), node_transport: NonNegative = 0.1
) -> Recipes:
    """HP-FT that keeps nodes near what they or their neighbours were (GTOT, Zhang et al., 2022).

    By optimal transport along the edges of each graph: see `tuning/transport.py`.
    """
    return hp_ft(probe, replace(finetune, node_transport=node_transport), tau=tau)


def stochastic_norm(
    probe: Phase, finetune: Phase, *, tau: Tau = (0,), running_statistics: Fraction = 0.5
) -> Recipes:
    """HP-FT with stochastic norm (Kou et al., 2020): see `tuning/stochastic_norm.py`."""
    phase = replace(finetune, running_statistics=running_statistics, batch_norm="train")
    return hp_ft(probe, phase, tau=tau)


def lora(probe: Phase, finetune: Phase, *, tau: Tau = (0,), adapter_rank: Whole = 8) -> Recipes:
    """HP-FT of low-rank changes of linear maps and convolutions (LoRA, Hu et al., 2022).

    Everything else of the backbone is frozen, batch norms included: see `tuning/adapters.py`.

    Args:
        probe: template of the head phase.
        finetune: template of the finetuning phase.
        tau: epochs of head probing.
        adapter_rank: of each change; at 0 the backbone stays as it is.
    """
    return hp_ft(probe, _of_adapters(finetune, rank=adapter_rank, scaling=None), tau=tau)


def linear_adapter(
    probe: Phase,
    finetune: Phase,
    *,
    tau: Tau = (0,),
    adapter_rank: Whole = 16,
    adapter_scaling: Positive = 0.01,
) -> Recipes:
    """HP-FT of adapters with a learned scaling each, after AdapterGNN (Li et al., 2024).

    Theirs have a ReLU, which no weight can take up; these are linear and end in the weights.

    Args:
        probe: template of the head phase.
        finetune: template of the finetuning phase.
        tau: epochs of head probing.
        adapter_rank: width of the bottleneck; at 0 the backbone stays as it is.
        adapter_scaling: what the scaling begins with.
    """
    phase = _of_adapters(finetune, rank=adapter_rank, scaling=adapter_scaling)
    return hp_ft(probe, phase, tau=tau)


def layerwise(
    probe: Phase, finetune: Phase, *, tau: Tau = (0,), layer_decay: Decay = 0.7
) -> Recipes:
    """HP-FT with a learning rate that falls with the distance from the head."""
    return hp_ft(probe, replace(finetune, layer_decay=layer_decay), tau=tau)


def surgical(probe: Phase, finetune: Phase, *, stages: tuple[str, ...], tau: Tau = (0,)) -> Recipes:
    """HP-FT of some stages of the backbone, the others frozen (Lee et al., 2023).

    The head is new for the task and always trained.
    """
    return hp_ft(probe, replace(finetune, stages=stages), tau=tau)


def gradual(
    probe: Phase,
    finetune: Phase,
    *,
    tau: Tau = (0,),
    unfreeze_every: Count = 1,
    layer_decay: Decay = ULMFIT_DECAY,
) -> Recipes:
    """HP-FT that trains one stage more every so many epochs, from the head down.

    Gradual unfreezing with discriminative rates (ULMFiT, Howard and Ruder, 2018); their epoch of
    the head alone is tau.
    """
    phase = replace(finetune, unfreeze_every=unfreeze_every, layer_decay=layer_decay)
    return hp_ft(probe, phase, tau=tau)


def side_tuning(probe: Phase, finetune: Phase, *, tau: Tau = (0,)) -> Recipes:
    """HP-FT of a copy that is blended with the frozen backbone (Zhang et al., 2020)."""
    return tuple(replace(recipe, side=True) for recipe in hp_ft(probe, finetune, tau=tau))


def wise_ft(
    probe: Phase,
    finetune: Phase,
    *,
    tau: Tau,
    alphas: tuple[Fraction, ...] = ALPHAS,
) -> Recipes:
    """HP-FT, then the best mixture of probed and finetuned weights (Wortsman et al., 2022)."""
    alphas = _some("alphas", alphas)
    return tuple(replace(recipe, alphas=alphas) for recipe in hp_ft(probe, finetune, tau=tau))


def dwise_ft(
    probe: Phase,
    finetune: Phase,
    *,
    tau: Tau,
    steps: Whole = 50,
    mixing_lr: Positive = 0.05,
) -> Recipes:
    """HP-FT, then a mixture of probed and finetuned weights stage by stage (DWiSE-FT, RoFt-Mol).

    Args:
        probe: template of the head phase.
        finetune: template of the finetuning phase.
        tau: epochs of head probing.
        steps: of gradient descent on the validation loss, by which mixing weights are learned.
        mixing_lr: its learning rate.
    """
    mixing = StageMixing(steps, mixing_lr)
    return tuple(replace(r, stage_mixing=mixing) for r in hp_ft(probe, finetune, tau=tau))


def uniform_soup(probe: Phase, finetune: Phase, *, tau: Tau, repeats: Repeats = 1) -> Recipes:
    """HP-FT from every tau, then the mean of all finetuned weights (Wortsman et al., 2022).

    Args:
        probe: template of the head phase.
        finetune: template of the finetuning phase.
        tau: epochs of head probing, one head for each.
        repeats: finetunings from each head, which differ in the order of examples and in what
            dropout drops.
    """
    return _soup("uniform", hp_ft(probe, finetune, tau=tau), repeats)


def greedy_soup(probe: Phase, finetune: Phase, *, tau: Tau, repeats: Repeats = 1) -> Recipes:
    """HP-FT from every tau, then the mean of those weights that help on validation.

    The greedy soup of Wortsman et al. (2022); arguments as for `uniform_soup`.
    """
    return _soup("greedy", hp_ft(probe, finetune, tau=tau), repeats)


def flyp(
    probe: Phase,
    finetune: Phase,
    *,
    pretraining: str | dict[str, Any],
    weight: Positive = 1.0,
    tau: Tau = (0,),
) -> Recipes:
    """HP-FT that goes on serving the pretraining targets (after FLYP, Goyal et al., 2023).

    Args:
        probe: template of the head phase.
        finetune: template of the finetuning phase.
        pretraining: name of the pretraining task, or its name and options as under `task`; it must
            have targets for the same molecules. The encoder's weights must come from a run on it,
            whose head is kept.
        weight: of the pretraining loss beside the new task's.
        tau: epochs of head probing.

    Raises:
        ValueError: `pretraining` names no task.
    """
    given = {"name": pretraining} if isinstance(pretraining, str) else pretraining
    name, options = given.get("name"), {k: v for k, v in given.items() if k != "name"}
    if not isinstance(name, str):
        raise ValueError(f"method.pretraining must be a name, or keys with a name, got {given}")
    auxiliary = AuxiliaryTask(name, weight, options)
    return tuple(replace(recipe, auxiliary=auxiliary) for recipe in hp_ft(probe, finetune, tau=tau))


def flyp_contrast(probe: Phase, finetune: Phase, *, tau: Tau = (0,)) -> Recipes:
    """HP-FT by class contrast: an analogue of FLYP where an encoder was not pretrained on texts."""
    return tuple(replace(recipe, contrast=True) for recipe in hp_ft(probe, finetune, tau=tau))


def _of_adapters(finetune: Phase, *, rank: int, scaling: float | None) -> Phase:
    """The phase with adapters in place of weights, and batch norms that stay as they are."""
    return replace(
        finetune,
        adapter_rank=rank,
        adapter_scaling=scaling,
        batch_norm="frozen",
        running_statistics=0.0,
    )


def _soup(how: Soup, recipes: Recipes, repeats: int) -> Recipes:
    return tuple(replace(r, soup=how, repeat=k) for r in recipes for k in range(repeats))


def _some(name: str, numbers: tuple[float, ...]) -> tuple[float, ...]:
    if not numbers:
        raise ValueError(f"{name} lists at least one number, got none")
    return numbers
