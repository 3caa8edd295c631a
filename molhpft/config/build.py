"""From a checked config to the objects it names."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import pad

from molhpft.config.options import checked, keywords, unknown
from molhpft.config.registry import ENCODERS, HEADS, METHODS, TASKS
from molhpft.config.schema import Choice, RunConfig, beside_of, without_beside
from molhpft.core.beside import ending_beside, with_columns
from molhpft.core.data import Rows, Task
from molhpft.core.determinism import seed_for
from molhpft.core.network import Chain, Network, side_tuned
from molhpft.core.objectives import ClassContrast, Joint, Multiclass, ScoredByLoss
from molhpft.core.standardise import STAGE, ending_standardised, standardised
from molhpft.domains.files import path_digest
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.further_columns import column_counts, reading_beside
from molhpft.domains.molecules.pretraining import joint_task
from molhpft.domains.vision.examples import UNCHANGED, Images
from molhpft.domains.weights import read_weights, strip_prefix, weight_file
from molhpft.tuning.adapters import check_adapters
from molhpft.tuning.phase import Phase
from molhpft.tuning.recipes import AuxiliaryTask, Recipe
from molhpft.tuning.stochastic_norm import check_norms
from molhpft.tuning.trained_stages import check_stages, check_unfreezing
from molhpft.tuning.transport import transported_stage

_OF_ANY_FILE = ("csv", "image_folder", "image_npz")
"""Tasks that are named by the file or folder they are read from."""

_STRETCH = 16_384  # molecules whose targets are in memory at a time


def build_recipes(config: RunConfig) -> tuple[Recipe, ...]:
    """The method's recipes, one a tau; they differ in nothing else."""
    return METHODS[config.method.name](config.probe, config.finetune, **config.method.options)


def served_task(auxiliary: AuxiliaryTask) -> Choice:
    """The pretraining task that training goes on serving, every option checked and filled in.

    Raises:
        ValueError: there is no such task, or it has no such option.
    """
    if auxiliary.task not in TASKS:
        raise ValueError(unknown(auxiliary.task, list(TASKS), "method.pretraining"))
    parameters = keywords(TASKS[auxiliary.task])
    options = checked("method.pretraining", parameters, dict(auxiliary.options))
    return Choice(auxiliary.task, options)


def build_task(config: RunConfig, recipe: Recipe) -> Task:
    """The task as the recipe trains on it.

    Raises:
        FileNotFoundError: its data are absent; the message says what to put where.
        ValueError: its data cannot be used, a split is empty or cannot be scored, or the recipe
            wants another kind of task.
    """
    task = TASKS[config.task.name](**config.task.options)
    check_splits(task)
    if recipe.contrast:
        task = _contrasted(task)
    if recipe.auxiliary:
        served = served_task(recipe.auxiliary)
        pretraining = TASKS[served.name](**served.options)
        task = joint_task(task, pretraining, weight=recipe.auxiliary.weight)
    return reading_beside(task, beside_of(config.head))


def build_network(
    config: RunConfig, task: Task, recipe: Recipe, *, device: torch.device | str = "cpu"
) -> Network:
    """Encoder and head with the seed's random weights, then what the encoder's file has of them.

    Args:
        config: names encoder, weights, head and cut.
        task: says how many outputs the head has, and gives what it reads beside features.
        recipe: says which weights are used, and how.
        device: where the network is put, and reads the training split if features are standardised.

    Raises:
        ValueError: task, encoder and head do not go together, the weights do not fit the encoder,
            or it has no such stage to cut at or to train, no two stages to unfreeze one after the
            other, no batch norm to make stochastic, nothing to put adapters on, or no nodes to
            transport.
    """
    encoder = ENCODERS[config.encoder.name]
    options = {k: v for k, v in config.encoder.options.items() if k != "weights"}
    _check_fit(config, task)
    _check_standardised(config, recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(config.seed, "backbone"))
        backbone = encoder.build(**options)
        # a head of its own for every task: one that begins as the head of the pretraining began
        # would find features that were shaped for it
        torch.manual_seed(seed_for(config.seed, f"head of {_head_stream(config, task)}"))
        head = _build_head(config.head, backbone.width, task.outputs)
    random = deepcopy(backbone)
    _load(config, task, recipe, backbone=backbone, head=head)
    network = Network(backbone, head).to(device)
    if config.standardise:
        network = standardised(network, task)
    if beside := beside_of(config.head):
        network = with_columns(network, task, column_counts(beside))
    if config.cut is not None:  # what is beside features joins them above the cut, in the head
        network = _partial(network, random, config.cut)
    if recipe.side:
        network = Network(side_tuned(network.backbone), network.head)
    for phase in recipe.after:
        _check_phase(network.backbone, phase)
    return network


def _load(config: RunConfig, task: Task, recipe: Recipe, *, backbone: Chain, head: Chain) -> None:
    """Put what the encoder's file has, and the recipe uses, into a random backbone and head."""
    encoder, weights = ENCODERS[config.encoder.name], config.encoder.options["weights"]
    if recipe.keeps_head and weights is None:
        raise ValueError(
            f"method {config.method.name} takes the head in the encoder's weight file, and there "
            "is none; set encoder.weights"
        )
    if not recipe.pretrained or weights is None:
        return
    encoder.load(backbone, weights)
    if recipe.keeps_head:
        _take_head(head, weights, of_others=encoder.head)
    if recipe.auxiliary:
        _keep_head(head, weights, outputs=_further_outputs(task), beside=_width_beside(config.head))


def _build_head(head: Choice, width: int, outputs: int) -> Chain:
    """A random head on features of a width, and on what it reads beside them."""
    width += _width_beside(head)
    return HEADS[head.name].build(width, outputs, **without_beside(head).options)


def _width_beside(head: Choice) -> int:
    """How many columns a head reads beside the features."""
    return sum(column_counts(beside_of(head)).values())


def _check_phase(backbone: Chain, phase: Phase) -> None:
    """Refuse a phase that wants of the backbone what it has not."""
    check_stages(backbone, phase)
    check_unfreezing(backbone, phase)
    check_adapters(backbone, phase)
    if phase.node_transport:
        transported_stage(backbone)
    if phase.running_statistics:
        check_norms(backbone)


def _head_stream(config: RunConfig, task: Task) -> str:
    """What tells a task from the one its encoder was pretrained on; never the name of a file."""
    if config.task.name not in _OF_ANY_FILE:
        return task.name
    return f"{config.task.name} after {weights_digest(config)}"


def shaped_network(
    encoder: Choice, head: Choice, cut: str | None, *, standardise: bool, outputs: int
) -> Network:
    """A network of the shape that a run trained, to put its weights into.

    Args:
        encoder: the run's; its `weights` do not count.
        head: the run's.
        cut: the run's.
        standardise: the run's.
        outputs: number of logits.

    Raises:
        ValueError: the encoder has no such stage to cut at.
    """
    options = {k: v for k, v in encoder.options.items() if k != "weights"}
    backbone = ENCODERS[encoder.name].build(**options)
    on_top = _build_head(head, backbone.width, outputs)
    backbone = ending_standardised(backbone) if standardise else backbone
    if beside := beside_of(head):
        backbone = ending_beside(backbone, column_counts(beside))
    network = Network(backbone, on_top)
    return network if cut is None else network.cut(cut)


def _check_fit(config: RunConfig, task: Task) -> None:
    encoder, head = ENCODERS[config.encoder.name], HEADS[config.head.name]
    if not isinstance(task.examples, encoder.takes):
        raise ValueError(
            f"encoder {config.encoder.name} reads {encoder.takes.__name__.lower()}, and task "
            f"{task.name} has {type(task.examples).__name__.lower()}; `molhpft encoders` lists all"
        )
    if head.reads != encoder.gives:
        fitting = [name for name, other in HEADS.items() if other.reads == encoder.gives]
        raise ValueError(
            f"head {config.head.name} reads feature {head.reads}, and encoder "
            f"{config.encoder.name} gives {encoder.gives}; heads for it: {', '.join(fitting)}"
        )
    _check_size(config, task)
    augments = isinstance(task.examples, Images) and task.examples.augment != UNCHANGED
    if config.views not in (0, "live") and head.reads == "vectors" and not augments:
        raise ValueError(
            f"views would do nothing: task {task.name} does not augment its examples, so that "
            f"{config.views} views of one are {config.views} times the same; leave it out"
        )


def _check_standardised(config: RunConfig, recipe: Recipe) -> None:
    """Refuse to standardise features under layers or a head that were trained on them as they are.

    Raises:
        ValueError: the config does.
    """
    if config.standardise and config.cut is not None:
        raise ValueError(
            f"standardise is of the features that the whole encoder gives, and cut: {config.cut} "
            "leaves a part of it to the head; set standardise: false"
        )
    if config.cut is not None and recipe.keeps_head:
        raise ValueError(
            f"method {config.method.name} trains nothing, and cut: {config.cut} leaves random "
            "stages; leave cut out"
        )
    if beside_of(config.head) and recipe.keeps_head:
        raise ValueError(
            f"method {config.method.name} keeps the head of the pretraining, which reads features "
            "alone; leave head.beside out"
        )
    if config.standardise and (recipe.auxiliary or recipe.keeps_head):
        raise ValueError(
            f"method {config.method.name} keeps the head of the pretraining, which reads features "
            "as they are; set standardise: false"
        )


def _check_size(config: RunConfig, task: Task) -> None:
    """Refuse an encoder that was made for examples of another size."""
    if isinstance(task.examples, Images):
        key, size = "channels", task.examples.pixels.shape[1]
    elif isinstance(task.examples, Rows):
        key, size = "inputs", task.examples.inputs.shape[1]
    else:
        return
    made_for = config.encoder.options.get(key, size)
    if made_for != size:
        raise ValueError(
            f"encoder.{key} is {made_for}, and examples of task {task.name} have {size} {key}; "
            f"set encoder.{key}={size}"
        )


def _partial(network: Network, random: Chain, at: str) -> Network:
    """The stages from `at` on as part of the head, with random weights (partial backbone)."""
    lower, upper = network.backbone.split(at)
    if not lower.names:
        raise ValueError(f"cut: {at} leaves no backbone to transfer; use method: scratch")
    own = upper.named_stages()
    for name, stage in random.split(at)[1].named_stages().items():
        own[name].load_state_dict(stage.state_dict())
    return network.cut(at)


def check_splits(task: Task, *, needed: Sequence[str] = ("train", "valid", "test")) -> None:
    """Find out before training, not after it, that a split is missing or cannot be scored.

    Args:
        task: that is about to be trained on.
        needed: splits that it has to have; any other is looked at as well.

    Raises:
        ValueError: a split is missing, empty or cannot be scored.
    """
    for split in dict.fromkeys((*needed, *task.splits)):
        rows = task.rows(split)
        if not isinstance(task.examples, Molecules):
            continue
        if isinstance(task.objective, ScoredByLoss):
            _check_labelled(task, split)
            continue
        try:
            targets = task.examples.targets[rows].float()
            task.objective.score(torch.zeros(len(rows), task.outputs), targets)
        except ValueError as error:
            raise ValueError(
                f"split {split!r} of {task.name} ({len(rows):,} molecules) cannot be scored: "
                f"{error}; give more molecules or another split"
            ) from error


def _check_labelled(task: Task, split: str) -> None:
    """Refuse a split without any target, whose loss would be 0, the best there is."""
    rows = task.rows(split)
    # the first stretch nearly always tells, and all targets of a pretraining fit in no memory
    stretches = torch.split(rows, _STRETCH)
    if all(task.examples.targets[some].isnan().all() for some in stretches):
        raise ValueError(
            f"split {split!r} of {task.name} ({len(rows):,} molecules) cannot be scored: none of "
            "its molecules has a target; give more molecules, another split, or targets that are "
            "computed from structure"
        )


def _contrasted(task: Task) -> Task:
    if not isinstance(task.objective, Multiclass):
        raise ValueError(
            f"class contrast is for tasks with classes; {task.name} is "
            f"{type(task.objective).__name__.lower()}: use flyp, which keeps pretraining targets"
        )
    return replace(task, objective=ClassContrast(ignore=task.objective.ignore))


def _further_outputs(task: Task) -> int:
    """Outputs of a joint task behind those of its main objective."""
    return task.outputs - task.objective.outputs if isinstance(task.objective, Joint) else 0


def _keep_head(head: Chain, weights: Path, *, outputs: int, beside: int) -> None:
    """Give the last outputs of a linear head the weights of the pretrained one.

    Args:
        head: changed in place.
        weights: the file with the pretrained head, which reads features alone.
        outputs: how many are given.
        beside: last columns that the head reads and the pretrained one does not; their weights
            begin at 0.
    """
    own, prefix = head.state_dict(), "head."
    saved = {k: v for k, v in read_weights(weights).tensors.items() if k.startswith(prefix)}
    for name, value in own.items():
        theirs = saved.get(prefix + name)
        shape = (outputs, *(width - beside for width in value.shape[1:]))
        if theirs is None or theirs.shape != shape:
            raise ValueError(
                f"flyp keeps the pretrained head, and {weights} has none that fits {name} of "
                f"{shape}; give the model.safetensors of a run on the pretraining task with the "
                "same head, on features alone"
            )
        value[-outputs:] = pad(theirs, (0, beside)) if value.ndim > 1 else theirs
    head.load_state_dict(own)


def _take_head(head: Chain, weights: Path, *, of_others: Callable[[Path], Chain] | None) -> None:
    """Give a head the weights of the one in a file.

    Args:
        head: changed in place, or not at all.
        weights: the file.
        of_others: reads the head in a file that is not of this package.
    """
    tensors = read_weights(weights).tensors
    theirs = strip_prefix(tensors, "head.")
    if any(f"stages.{STAGE}." in name for name in tensors):
        raise ValueError(
            f"the head in {weights} reads standardised features, whose mean and std belong to what "
            "it was trained on; zero_shot takes a head that reads features as they are"
        )
    if not theirs and of_others is not None:
        theirs = of_others(weights).state_dict()
    own = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in theirs.items()}
    if own != shapes:
        raise ValueError(
            f"zero_shot takes the head in {weights}, which should be one of "
            f"{_shapes(own)} for this task and head; it has {_shapes(shapes)}"
        )
    head.load_state_dict(theirs)


def _shapes(weights: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in weights.items()) or "none"


def weights_digest(config: RunConfig) -> str | None:
    """SHA-256 of the file that the encoder starts from; None where it starts from random."""
    weights = config.encoder.options["weights"]
    return None if weights is None else path_digest(weight_file(weights))
