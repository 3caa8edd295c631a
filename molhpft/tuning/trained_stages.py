"""Which stages of a backbone a phase trains, epoch by epoch; the others are frozen.

A stage that is not trained keeps every number, batch-norm statistics included, and is in eval mode.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from molhpft.core.beside import Beside
from molhpft.core.network import Chain, Network
from molhpft.core.standardise import Standardised
from molhpft.tuning.phase import Phase

Freeze = Callable[[int], None]


def own_stages(backbone: Chain) -> dict[str, nn.Module]:
    """The encoder's own stages, by name, without what a run has put on top of them."""
    added = (Standardised, Beside)
    named = backbone.named_stages().items()
    return {name: stage for name, stage in named if not isinstance(stage, added)}


def trained_stages(backbone: Chain, phase: Phase, *, epoch: int | None = None) -> list[str]:
    """Names of the stages that are trained, the first applied first.

    Args:
        backbone: of the network that is trained.
        phase: says which.
        epoch: counted from 0; None for those that are trained in some epoch.

    >>> from torch import nn
    >>> from molhpft.core.network import Plain
    >>> backbone = Chain({name: Plain(nn.Linear(2, 2), width=2) for name in "abc"})
    >>> phase = Phase(trains="all", epochs=9, lr=0.1, unfreeze_every=2)
    >>> [trained_stages(backbone, phase, epoch=epoch) for epoch in (0, 1, 2, 4)]
    [['c'], ['c'], ['b', 'c'], ['a', 'b', 'c']]
    """
    if phase.trains == "head" or phase.adapter_rank == 0:
        return []
    stages = backbone.named_stages()
    names = [name for name in stages if phase.stages is None or name in phase.stages]
    if not phase.unfreeze_every or epoch is None:
        return names
    learning = with_weights(stages, names)
    count = 1 + epoch // phase.unfreeze_every
    return names if count >= len(learning) else names[names.index(learning[-count]) :]


def check_unfreezing(backbone: Chain, phase: Phase) -> None:
    """Refuse to unfreeze stage by stage where there are no two that could take turns.

    Raises:
        ValueError: the phase asks for it.
    """
    trained = trained_stages(backbone, phase)
    turns = with_weights(backbone.named_stages(), trained)
    if phase.unfreeze_every and len(turns) < 2:
        raise ValueError(
            f"unfreeze_every {phase.unfreeze_every} trains one stage of the backbone more each "
            f"time, and those with weights that are trained are: {', '.join(turns) or 'none'}; "
            "leave unfreeze_every out (method gradual sets it), or train more stages"
        )


def with_weights(stages: Mapping[str, nn.Module], names: Iterable[str]) -> list[str]:
    """Names of stages that have something to learn: one such as a pool is none of them."""
    return [name for name in names if any(True for _ in stages[name].parameters())]


def check_stages(backbone: Chain, phase: Phase) -> None:
    """Refuse stages that the backbone has not.

    Raises:
        ValueError: the phase names one.
    """
    for name in phase.stages or ():
        if name not in backbone.names:
            raise ValueError(
                f"stages names {name!r}, and the backbone has: {', '.join(backbone.names)}; "
                "what is above a cut belongs to the head, which is always trained"
            )


def set_modes(network: Network, phase: Phase, *, epoch: int = 0) -> None:
    """Put every module into the mode in which a phase trains it, in an epoch counted from 0."""
    network.train()
    # eval mode, not only requires_grad: batch-norm statistics would drift during probing
    network.backbone.train(phase.trains == "all")
    trained = trained_stages(network.backbone, phase, epoch=epoch)
    for name, stage in network.backbone.named_stages().items():
        stage.train(name in trained)
    for stage in (*network.backbone, *network.head):
        parameters = list(stage.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            stage.eval()
    if phase.batch_norm == "frozen":
        for module in network.backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


@contextmanager
def frozen_where_untrained(network: Network, phase: Phase) -> Iterator[Freeze]:
    """A block with gradients for what the phase trains and the caller has not frozen.

    Gives a function that freezes what is not trained in an epoch, counted from 0. Afterwards the
    same parameters require gradients as before.

    Raises:
        ValueError: the phase names a stage that the backbone has not.
    """
    check_stages(network.backbone, phase)
    before = [(p, p.requires_grad) for p in network.parameters()]
    trainable = {id(p) for p, requires_grad in before if requires_grad}

    def freeze(epoch: int | None) -> None:
        names = trained_stages(network.backbone, phase, epoch=epoch)
        for name, stage in network.backbone.named_stages().items():
            for parameter in stage.parameters():
                parameter.requires_grad_(name in names and id(parameter) in trainable)

    freeze(None)
    try:
        yield freeze
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)
