"""The training loop: what it must leave alone, and what each setting means."""

import math
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from math import ceil

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from molhpft.core.evaluate import take
from molhpft.core.network import Chain, Network, Plain
from molhpft.core.objectives import Multilabel, ScoredByLoss, Squared
from molhpft.measure.features import initial_energy
from molhpft.tuning.fit import best_epoch, fit, score
from molhpft.tuning.phase import Phase
from tests.toy import NAN, same_weights, scripted, seeded, toy_network, toy_task

FT = Phase(trains="all", epochs=4, lr=0.01, batch_size=10)
HEAD = replace(FT, trains="head", lr=0.1)


def trained(phase, *, seed=0, task=None, network=None):
    network = network or toy_network(dropout=0.3)
    return network, fit(network, phase, task or toy_task(), rng=seeded(seed))


def without_idle_biases():
    """The toy network without the biases that batch norm takes out again.

    Their gradient is rounding, which Adam would scale to the size of the learning rate.
    """
    network = toy_network(dropout=0.3)
    for stage in network.backbone:
        stage.module[0].bias = None
    return network


def stage_outputs(backbone, batch):
    outputs, h = [], batch.inputs
    for stage in backbone:
        h = stage(h, batch)
        outputs.append(h)
    return outputs


def penalties_by_hand(outputs, source, phase):
    """The penalties of DELTA, feature distillation and BSS, each as its paper writes it."""
    total = 0.0
    for maps, source_maps in zip(outputs, source, strict=True):
        per_filter = [
            (maps[:, j] - source_maps[:, j].detach()).norm() ** 2 for j in range(maps.shape[1])
        ]
        total += phase.stage_anchor / 2 * sum(per_filter) / len(maps)
    z, z0 = outputs[-1], source[-1].detach()
    hint = ((z - z0) ** 2).sum() / len(z)
    gram = z.double().T @ z.double()  # its eigenvalues are the squared singular values
    smallest = torch.linalg.eigvalsh(gram)[max(0, z.shape[1] - len(z))]
    return total + phase.feature_anchor / 2 * hint + phase.spectral_shrinkage * smallest.float()


def set_modes_by_hand(network, phase, *, is_frozen):
    """Modes of an epoch, in which the lower layer is frozen or not."""
    layer0, layer1 = network.backbone
    layer0.train(not is_frozen).requires_grad_(not is_frozen)
    for layer in (layer0, layer1):
        if phase.batch_norm == "frozen":
            layer.module[1].eval()


def by_hand(phase, task, *, seed=0):
    """The phase as one would write it in plain torch: an independent reference for `fit`."""
    network = without_idle_biases().train()
    start = {name: p.detach().clone() for name, p in network.backbone.named_parameters()}
    source = deepcopy(network.backbone)
    for stage in source:
        stage.module[1].eval()  # drops what the network drops, normalises as it was pretrained
    layer0, layer1 = network.backbone
    rate = phase.backbone_lr or phase.lr
    groups = [
        {"params": network.head.parameters(), "lr": phase.lr},
        {"params": layer1.parameters(), "lr": rate * phase.layer_decay},
        {"params": layer0.parameters(), "lr": rate * phase.layer_decay**2},
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    more = {"momentum": phase.momentum} if phase.optimizer == "sgd" else {}
    optimizer = kind[phase.optimizer](groups, weight_decay=phase.weight_decay, **more)
    rows, rng = task.rows("train"), torch.Generator().manual_seed(seed)
    steps = ceil(len(rows) / phase.batch_size)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * phase.epochs)
    losses = []
    for epoch in range(phase.epochs):
        is_frozen = phase.stages == ("layer1",) or epoch < phase.unfreeze_every
        set_modes_by_hand(network, phase, is_frozen=is_frozen)
        dropout = int(torch.randint(2**62, (), generator=rng))
        order = rows[torch.randperm(len(rows), generator=rng)]
        for step, some in enumerate(order.tensor_split(steps)):
            torch.manual_seed(dropout + step)
            batch = task.examples.take(some)
            outputs = stage_outputs(network.backbone, batch)
            logits = network.head(outputs[-1], batch)
            loss = F.cross_entropy(logits, batch.targets, label_smoothing=phase.smoothing)
            losses.append(loss.item())
            torch.manual_seed(dropout + step)
            loss = loss + penalties_by_hand(outputs, stage_outputs(source, batch), phase)
            optimizer.zero_grad()
            loss.backward()
            for name, p in network.backbone.named_parameters():
                if is_frozen and "layer0" in name:
                    continue
                # the gradient of anchor / 2 |w - w0|^2 (Li et al., 2018)
                p.grad += phase.anchor * (p.detach() - start[name])
            for p in network.head.parameters():
                p.grad += phase.head_penalty * p.detach()
            optimizer.step()
            if phase.schedule == "cosine":
                cosine.step()
    return network, torch.tensor(losses).view(phase.epochs, steps).mean(1).tolist()


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"weight_decay": 0.1},
        {"batch_size": 13},
        {"smoothing": 0.2, "optimizer": "sgd"},
        {"schedule": "cosine", "optimizer": "sgd", "lr": 0.1},
        {"backbone_lr": 0.002, "optimizer": "sgd"},
        {"layer_decay": 0.5, "optimizer": "sgd"},
        {"backbone_lr": 0.002, "layer_decay": 0.5, "optimizer": "sgd"},
        {"anchor": 1.0, "optimizer": "sgd"},
        {"anchor": 1.0, "head_penalty": 0.5, "optimizer": "sgd"},
        {"batch_norm": "frozen"},
        {"stages": ("layer1",), "optimizer": "adamw", "weight_decay": 0.1},
        {"unfreeze_every": 2, "layer_decay": 0.5, "weight_decay": 0.1},
        {"unfreeze_every": 3, "optimizer": "sgd", "anchor": 1.0},
        {"stage_anchor": 0.5, "optimizer": "sgd"},
        {"feature_anchor": 0.5, "optimizer": "sgd"},
        {"spectral_shrinkage": 0.5, "optimizer": "sgd"},
        {"spectral_shrinkage": 0.5, "optimizer": "sgd", "batch_size": 6},
        {"stage_anchor": 0.2, "feature_anchor": 0.3, "spectral_shrinkage": 0.1, "anchor": 0.1},
    ],
    ids=str,
)
def test_a_phase_is_what_one_would_write_by_hand_in_torch(setting):
    phase = replace(FT, **setting)
    state = torch.get_rng_state()
    theirs, losses = by_hand(phase, toy_task())
    torch.set_rng_state(state)
    ours, rows = trained(phase, network=without_idle_biases())
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-4, atol=1e-6)
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-5)


def test_probing_leaves_every_number_of_the_backbone():
    def with_statistics_alone():
        network = toy_network(dropout=0.3)
        scale = Plain(nn.BatchNorm1d(8, affine=False), width=8)
        stages = {**network.backbone.named_stages(), "scale": scale}
        return Network(Chain(stages), network.head)

    start, network = with_statistics_alone(), with_statistics_alone()
    trained(HEAD, network=network)
    assert same_weights(network.backbone, start.backbone)
    assert not same_weights(network.head, start.head)


@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_finetuning_changes_every_number_but_frozen_statistics(batch_norm):
    network, _ = trained(replace(FT, batch_norm=batch_norm))
    start = toy_network(dropout=0.3).state_dict()
    for name, value in network.state_dict().items():
        is_statistic = "running" in name or "num_batches" in name
        kept = is_statistic and batch_norm == "frozen"
        assert torch.equal(value, start[name]) == kept, name


@pytest.mark.parametrize("phase", [FT, HEAD, replace(FT, weight_decay=0.1, anchor=0.1)], ids=str)
def test_a_stage_that_the_caller_froze_stays_as_it_is(phase):
    network = toy_network(dropout=0.3)
    network.backbone.stages["layer0"].requires_grad_(False)
    trained(phase, network=network)
    start = toy_network(dropout=0.3)
    assert same_weights(network.backbone.stages["layer0"], start.backbone.stages["layer0"])
    assert not same_weights(network.head, start.head)
    moved = not same_weights(network.backbone.stages["layer1"], start.backbone.stages["layer1"])
    assert moved == (phase.trains == "all")


@pytest.mark.parametrize("phase", [FT, HEAD], ids=lambda phase: phase.trains)
@pytest.mark.parametrize("lr", [0.01, 1e25], ids=["trained", "diverged"])
def test_afterwards_the_same_parameters_are_trainable_as_before(phase, lr):
    network = toy_network()
    network.backbone.stages["layer0"].requires_grad_(False)
    before = [p.requires_grad for p in network.parameters()]
    diverged = lr > 1
    with pytest.raises(ValueError, match="diverged") if diverged else nullcontext():
        phase = replace(phase, lr=lr, optimizer="sgd", epochs=20)
        trained(phase, network=network, task=toy_task(Squared()))
    assert [p.requires_grad for p in network.parameters()] == before


@pytest.mark.parametrize(("phase", "part"), [(FT, "the network"), (HEAD, "the head")])
def test_nothing_to_train_is_refused(phase, part):
    network = toy_network()
    network.requires_grad_(False)
    network.backbone.requires_grad_(phase is HEAD)
    with pytest.raises(ValueError, match=f"nothing to train: no parameter of {part} requires gr"):
        trained(phase, network=network)


def test_the_generator_and_nothing_else_decides_order_and_dropout():
    first = toy_network(dropout=0.3)
    state = torch.get_rng_state()
    trained(FT, seed=3, network=first)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(1)
    with torch.no_grad():  # a caller who records no gradients
        again, _ = trained(FT, seed=3)
    assert same_weights(first, again)
    assert not same_weights(first, trained(FT, seed=4)[0])


def test_energy_falls_while_probing():
    task, network, energies = toy_task(), toy_network(), []
    rng, phase = seeded(), replace(HEAD, epochs=1, lr=0.01, batch_size=30)
    for _ in range(20):
        fit(network, phase, task, rng=rng)
        snapshot = take(network, task.batches("train", size=50))
        energies.append(initial_energy(snapshot, task.objective))
    assert energies == sorted(energies, reverse=True)


def test_keeping_the_best_is_stopping_at_the_best_epoch():
    task, phase = toy_task(Squared()), replace(FT, epochs=12, lr=0.3, keep="best")
    network, rows = trained(phase, task=task)
    best = best_epoch(rows)
    assert best < 12
    assert score(network, task, "valid") == rows[best - 1]["valid"] == max(r["valid"] for r in rows)
    assert same_weights(network, trained(replace(FT, epochs=best, lr=0.3), task=task)[0])


@pytest.mark.parametrize(
    ("scores", "best"), [((NAN, 0.2, 0.5, 0.1), 3), ((0.2, NAN, NAN, 0.1), 1), ((NAN, 0.1), 2)]
)
def test_an_epoch_whose_score_is_nan_is_never_the_best(scores, best):
    phase = replace(FT, epochs=len(scores), keep="best")
    network, rows = trained(phase, task=scripted(*scores))
    assert best_epoch(rows) == best
    stopped, _ = trained(replace(FT, epochs=best), task=toy_task(Squared()))
    assert same_weights(network, stopped)


def test_no_epoch_is_the_best_of_scores_that_are_all_nan():
    assert best_epoch([{"valid": NAN}, {"valid": NAN}]) == best_epoch([]) == 0
    with pytest.raises(ValueError, match="no epoch of 3 gave finite predictions on the whole val"):
        trained(replace(FT, epochs=3, keep="best"), task=scripted(NAN, NAN, NAN))


def test_epochs_whose_score_is_nan_use_up_patience():
    phase = replace(FT, epochs=9, patience=2)
    assert len(trained(phase, task=scripted(0.1, NAN, NAN, 0.9))[1]) == 3
    assert len(trained(phase, task=scripted(NAN, NAN, 0.9))[1]) == 2


def test_patience_stops_after_that_many_epochs_without_a_better_score():
    phase = replace(FT, epochs=60, lr=0.3, patience=3)
    _, rows = trained(phase, task=toy_task(Squared()))
    assert len(rows) < 60
    assert len(rows) - best_epoch(rows) == 3


def test_predictions_that_are_not_finite_are_warned_of_once(caplog):
    task = toy_task(Squared())
    trained(replace(FT, patience=9), task=task)
    assert not caplog.records
    inputs = task.examples.inputs.clone()
    inputs[task.rows("valid")] = float("inf")
    broken = replace(task.examples, inputs=inputs)
    task = replace(task, examples=broken, objective=ScoredByLoss(task.objective))
    _, rows = trained(replace(FT, patience=9), task=task)
    assert all(math.isnan(row["valid"]) for row in rows)
    assert [record.getMessage() for record in caplog.records] == [
        "predictions on the validation split of toy are not all finite after epoch 1: the score of "
        "that epoch is NaN, and its weights are never kept as the best; try a learning rate below "
        "lr=0.01"
    ]


def test_no_epochs_change_nothing():
    network, rows = trained(replace(FT, epochs=0))
    assert rows == []
    assert same_weights(network, toy_network(dropout=0.3))


@pytest.mark.parametrize(
    ("phase", "factor", "how"),
    [
        (replace(FT, lr=1e25, epochs=50, optimizer="sgd"), 1.0, "the loss is .*"),
        # its loss was taken before the step and is finite
        (
            replace(HEAD, epochs=1, lr=3e38, batch_size=99, optimizer="sgd"),
            1e3,
            "weights are not finite after epoch 1",
        ),
    ],
    ids=["loss", "last step"],
)
def test_training_that_diverges_is_an_error_with_its_learning_rate(phase, factor, how):
    task = toy_task(Squared())
    far = replace(task.examples, targets=factor * task.examples.targets)
    with pytest.raises(ValueError, match=rf"^training diverged: {how}; try a learning rate below"):
        trained(phase, task=replace(task, examples=far))


def test_statistics_that_are_not_finite_are_training_that_diverged():
    """A file of them would be refused, when the run that wrote it is complete."""
    network = toy_network()
    network.register_buffer("variance", torch.tensor(float("inf")))
    with pytest.raises(ValueError, match="training diverged: weights are not finite after epoch 1"):
        trained(replace(FT, epochs=1), network=network)


def test_an_epoch_without_any_label_is_finite():
    task = toy_task(Multilabel())
    blank = replace(task.examples, targets=torch.full_like(task.examples.targets, float("nan")))
    network, rows = trained(FT, task=replace(task, examples=blank))
    assert rows[-1]["loss"] == 0
    assert all(p.isfinite().all() for p in network.parameters())


def test_score_is_the_objective_on_the_whole_split():
    network, task = toy_network(), toy_task()
    rows = task.examples.take(task.rows("test"))
    logits = network.eval()(rows).detach()
    assert score(network, task, "test") == task.objective.score(logits, rows.targets)


def test_a_network_of_only_a_head_can_be_finetuned():
    headless = toy_network().cut("layer0")
    assert not headless.backbone.names
    _, rows = trained(FT, network=headless)
    assert rows[-1]["loss"] < rows[0]["loss"]
