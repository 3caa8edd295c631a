"""The one network shape of this package: an ordered chain of named stages.

A backbone and a head are both chains; a `Network` is the two joined. The running tensor `h` flows
through the stages, and every stage may read, never write, the batch it came from. That is what lets
graph, image and dense models share this file: a graph layer reads the bonds in `batch.inputs`, a
segmentation head reads the image size, everything else ignores the batch.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.core.annotations import Count, Float, Positive


@dataclass(frozen=True)
class Batch:
    """One mini-batch: what the first stage reads, and the labels.

    Attributes:
        inputs: a tensor with n rows, or a batch of n graphs; anything with `.to(device)`. If it is
            no tensor and holds real numbers, it has `.apply(f)` too, as torch_geometric's batches.
        targets: float (n, t), NaN where unmeasured; or int class ids (n,) or (n, height, width).
    """

    inputs: Any
    targets: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on `device`."""
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))

    def double(self) -> "Batch":
        """The same batch with real numbers in float64, for a network in float64."""
        if isinstance(self.inputs, Tensor):
            return Batch(_double(self.inputs), _double(self.targets))
        if hasattr(self.inputs, "apply"):  # in place: the copy that is changed is ours
            return Batch(deepcopy(self.inputs).apply(_double), _double(self.targets))
        return Batch(self.inputs, _double(self.targets))


def _double(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values


class Stage(nn.Module):
    """One step of a chain.

    Attributes:
        width: size of the channel axis (axis 1) it emits.
        gives_nodes: whether the first rows that it emits are the nodes of the batch's graphs.
    """

    width: int
    gives_nodes: bool = False

    def forward(self, h: Any, batch: Batch) -> Tensor:
        """Next running tensor, (rows, width, ...); the first stage gets `batch.inputs` as `h`."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")


class Plain(Stage):
    """A stage that ignores the batch: any ordinary module."""

    def __init__(self, module: nn.Module, *, width: int) -> None:
        super().__init__()
        self.module = module
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """`module(h)`."""
        result: Tensor = self.module(h)
        return result


class Chain(nn.Module):
    """Stages applied in order.

    Args:
        stages: stage name to stage, first applied first. May be empty (the identity). A dot in a
            name, such as `layer1.0`, is an underscore in the state dict.
        also: stage name to a second name, by which papers call the stage.

    Raises:
        TypeError: a value is no stage.
        ValueError: two names are one in the state dict.

    >>> wide = Plain(nn.Linear(4, 8), width=8)
    >>> chain = Chain({"wide": wide, "relu": Plain(nn.ReLU(), width=8)})
    >>> lower, upper = chain.split("relu")
    >>> lower.names, upper.names, chain.width
    (['wide'], ['relu'], 8)
    """

    def __init__(
        self, stages: Mapping[str, Stage], *, also: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self._names = tuple(stages)
        self._also = dict(also or {})
        # torch forbids dots in the names of modules
        keys = [name.replace(".", "_") for name in stages]
        if len(set(keys)) < len(keys):
            raise ValueError(
                f"names of stages must differ in more than dots for underscores, got: "
                f"{', '.join(stages)}"
            )
        self.stages = nn.ModuleDict(dict(zip(keys, stages.values(), strict=True)))
        self.named_stages()  # refuses what is none

    @property
    def names(self) -> list[str]:
        """Stage names, first applied first."""
        return list(self._names)

    @property
    def width(self) -> int:
        """Size of the channel axis that the last stage emits.

        Raises:
            ValueError: the chain is empty, so it emits whatever comes in.
        """
        if not self.names:
            raise ValueError("an empty chain has no width of its own")
        return self.named_stages()[self.names[-1]].width

    def named_stages(self) -> dict[str, Stage]:
        """Stage name to stage, first applied first."""
        named = zip(self._names, self.stages.values(), strict=True)
        return {name: _stage(name, module) for name, module in named}

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.named_stages().values())

    def forward(self, h: Any, batch: Batch) -> Any:
        """`h` after every stage; unchanged by an empty chain."""
        for stage in self.stages.values():
            h = stage(h, batch)
        return h

    def stage_name(self, given: str) -> str:
        """The stage's own name, given that or its second name.

        Raises:
            ValueError: no stage has that name; the message lists the names that exist.
        """
        own = {second: name for name, second in self._also.items() if name in self.names}
        name = own.get(given, given)
        if name not in self.names:
            both = [f"{n} ({self._also[n]})" if n in self._also else n for n in self.names]
            raise ValueError(f"no stage named {given!r}; this chain has: {', '.join(both)}")
        return name

    def split(self, at: str) -> tuple["Chain", "Chain"]:
        """The stages before the one named `at`, and the others; both share the original modules.

        Raises:
            ValueError: no stage has that name; the message lists the names that exist.
        """
        stages, k = list(self.named_stages().items()), self.names.index(self.stage_name(at))
        return Chain(dict(stages[:k]), also=self._also), Chain(dict(stages[k:]), also=self._also)

    def followed_by(self, after: "Chain") -> "Chain":
        """This chain, then `after`, each stage under both its names; modules are shared.

        Raises:
            ValueError: both have a stage of one name.
        """
        both = [name for name in self.names if name in after.names]
        if both:
            raise ValueError(
                f"stages of chains that are joined must differ in name, and both have: "
                f"{', '.join(both)}"
            )
        stages = {**self.named_stages(), **after.named_stages()}
        return Chain(stages, also={**self._also, **after._also})

    def mapped(self, stage_of: Callable[[Stage], Stage]) -> "Chain":
        """`stage_of` each stage, under the same names."""
        stages = {name: stage_of(stage) for name, stage in self.named_stages().items()}
        return Chain(stages, also=self._also)


def _stage(name: str, module: nn.Module) -> Stage:
    if not isinstance(module, Stage):
        raise TypeError(
            f"stage {name!r} of a chain should be a Stage, which reads the batch as well, and is a "
            f"{type(module).__name__}; wrap one that needs no batch: Plain(module, width=...)"
        )
    return module


class Network(nn.Module):
    """A backbone joined to a head: `logits = head(backbone(inputs))`.

    >>> first, second = Plain(nn.Linear(4, 8), width=8), Plain(nn.Linear(8, 8), width=8)
    >>> network = Network(Chain({"first": first, "second": second}), linear_head(8, 3))
    >>> network(Batch(torch.ones(2, 4), torch.zeros(2))).shape
    torch.Size([2, 3])
    >>> network.cut("second").head.names
    ['second', 'linear']
    """

    def __init__(self, backbone: Chain, head: Chain) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def features(self, batch: Batch) -> Float[Tensor, "rows d ..."]:
        """Features `z` that the head reads: (n, d), (atoms, d) or (n, d, height, width)."""
        z: Tensor = self.backbone(batch.inputs, batch)
        return z

    def forward(self, batch: Batch) -> Float[Tensor, "n c ..."]:
        """Logits, (n, t) or (n, classes, height, width)."""
        # not by `features`: those of a network cut at its first stage are its inputs
        logits: Tensor = self.head(self.backbone(batch.inputs, batch), batch)
        return logits

    def cut(self, at: str) -> "Network":
        """The same function with the stages from `at` on counted as head (a partial backbone).

        Raises:
            ValueError: the backbone has no stage of that name, or the head one of the same name as
                a stage that would join it.
        """
        lower, upper = self.backbone.split(at)
        return Network(lower, upper.followed_by(self.head))


def linear_head(width: int, outputs: int) -> Chain:
    """One linear map from features of `width` to logits, in PyTorch's default initialisation."""
    return Chain({"linear": Plain(nn.Linear(width, outputs), width=outputs)})


def mlp_head(width: int, outputs: int, *, hidden: Count = 256) -> Chain:
    """Two linear maps with a ReLU between; 256 hidden units in Ren et al. (2023).

    Fits the new task better than a linear head, so less energy is left after probing.
    """
    return Chain(
        {
            "hidden": Plain(nn.Sequential(nn.Linear(width, hidden), nn.ReLU()), width=hidden),
            "linear": Plain(nn.Linear(hidden, outputs), width=outputs),
        }
    )


def cosine_head(width: int, outputs: int, *, scale: Positive = 10.0) -> Chain:
    """Cosine between features and one learned vector for each class, times a learned scale.

    The head that class contrast wants: features and classes meet on the unit sphere, as images and
    texts do in CLIP.

    Args:
        width: of the features.
        outputs: number of classes.
        scale: where the learned scale starts; the inverse of a temperature.
    """
    return Chain({"cosine": Plain(Cosine(width, outputs, scale), width=outputs)})


class Cosine(nn.Module):
    """Scaled cosine similarity to each row of a learned matrix (outputs, width)."""

    def __init__(self, width: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, width) / width**0.5)
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Logits of features."""
        cosine = F.normalize(z, dim=1) @ F.normalize(self.weight, dim=1).T
        return cosine * self.log_scale.exp()


def side_tuned(backbone: Chain) -> Chain:
    """A backbone of one stage that blends a frozen copy of `backbone` with `backbone` itself.

    Side-tuning (Zhang et al., ECCV 2020). Both are equal at first, so the features are those of
    `backbone` until training moves the side.

    Args:
        backbone: becomes the side network; it is not copied.
    """
    return Chain({"blend": Blend(backbone)})


class Blend(Stage):
    """`alpha base(x) + (1 - alpha) side(x)`; the learned mixing weight alpha starts at one half."""

    def __init__(self, side: Chain) -> None:
        super().__init__()
        self.base = _frozen(deepcopy(side))
        self.side = side
        self.logit = nn.Parameter(torch.zeros(()))
        self.width = side.width

    def forward(self, h: Any, batch: Batch) -> Tensor:
        """Blended features, shaped like those of the backbone."""
        alpha = self.logit.sigmoid()
        blended: Tensor = alpha * self.base(h, batch) + (1 - alpha) * self.side(h, batch)
        return blended

    def train(self, mode: bool = True) -> "Blend":
        """Sets the mode of the side alone; the base always evaluates."""
        super().train(mode)
        self.base.eval()
        return self


def _frozen(module: nn.Module) -> nn.Module:
    """Every parameter as a buffer, which no optimizer, decay or anchor sees."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach().clone())
    return module
