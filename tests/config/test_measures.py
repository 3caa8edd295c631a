"""Measures asked for by a config: on every domain, in range, and without influence on the run."""

from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache, partial
from math import isfinite
from time import process_time
from weakref import ref

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GIN

from molhpft.config import measures as measuring
from molhpft.config.measures import (
    ALONG,
    AT_END,
    BINS,
    NAMES,
    TOGETHER,
    Branch,
    callbacks_along,
    check_measures,
    measure_branch,
    measure_run,
    phase_name,
    target_scores,
    unmeasured,
)
from molhpft.core.data import Portion, Rows, Task
from molhpft.core.determinism import seed_for
from molhpft.core.evaluate import evaluation_batches, take
from molhpft.core.network import (
    Chain,
    Network,
    Plain,
    cosine_head,
    linear_head,
    mlp_head,
    side_tuned,
)
from molhpft.core.objectives import ClassContrast, Joint, Multiclass, Multilabel, Part, Squared
from molhpft.domains.console import plain_console
from molhpft.domains.graphs.backbones import gnn_backbone
from molhpft.domains.graphs.tasks import pyg_task
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pretrain_gnns import pretrain_gnns_gcn
from molhpft.domains.molecules.pyg import pyg_gnn
from molhpft.domains.toy.digits import toy_mlp
from molhpft.domains.toy.linear import linear_network, linear_task
from molhpft.domains.vision.examples import Images
from molhpft.domains.vision.resnet import cifar_resnet
from molhpft.domains.vision.segmentation import aspp_head, segmentation_resnet, shapes_task
from molhpft.domains.weights import read_weights
from molhpft.measure.features import correct_probability, initial_energy, shift
from molhpft.results.terminal import measures_table
from molhpft.run.run import run
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from molhpft.tuning.recipes import Recipe
from tests.marks import slow
from tests.runs import SMALL, rows_of
from tests.toy import NAN, toy_network, toy_task

BRIEF = {"probe": {"lr": 0.01}, "method": {"name": "hp_ft", "tau": [0, 2]}}
BRIEF |= {"finetune": {"epochs": 2, "lr": 0.003}}


@pytest.fixture(scope="module", autouse=True)
def few_examples():
    """Kernels of 50 examples take a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "PROBE_EXAMPLES", 4)
        yield


@pytest.fixture(scope="module")
def plain(small, tmp_path_factory):
    return run(small(**BRIEF), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def measured(small, tmp_path_factory):
    return run(small(measures=list(NAMES), **BRIEF), tmp_path_factory.mktemp("measured"))


def finetuning_of(folder):
    return [row for row in folder.read_lines("history.jsonl") if row["phase"] == "finetune"]


def test_measuring_changes_no_weight_and_no_number(plain, measured):
    weights = [read_weights(f.path / "model.safetensors").tensors for f in (plain, measured)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0] | weights[1])
    stripped = [{k: v for k, v in row.items() if k != "measures"} for row in rows_of(measured)]
    assert stripped == rows_of(plain)


def test_every_measure_has_its_place_and_its_range(measured):
    summary, history = measured.read_json("summary.json"), finetuning_of(measured)
    assert all(row["ntk_change"] > 0 and row["direction"] > 0 for row in history)
    for branch in rows_of(measured):
        own = branch["measures"]
        assert set(own) == set(NAMES) - {"exchange"}
        assert own["ntk"]["change"] > 0
        assert own["direction"]["head_gradient"] > 0
        # a branch ends with the weights of one of its epochs
        changes = [row["head_change"] for row in history if row["tau"] == branch["tau"]]
        assert min(changes) > 0
        assert any(own["direction"]["head_change"] == pytest.approx(change) for change in changes)
        assert own["decomposition"]["first_order_error"] < 0.05
        for counts in own["confidence"]["histogram"].values():
            assert len(counts) == BINS
            assert sum(counts) == summary["sizes"]["train"]
        targets = {split: scores["ring"] for split, scores in own["targets"].items()}
        assert targets == branch["final"]


def test_the_diagonal_of_the_exchange_has_the_networks_as_they_are(measured):
    exchange = measured.read_json("summary.json")["measures"]["exchange"]
    rows = rows_of(measured)
    for split in ("train", "valid"):
        diagonal = [exchange[split][k][k] for k in range(len(rows))]
        assert diagonal == pytest.approx([row["final"][split] for row in rows])


def test_measures_are_printed_where_there_are_any(plain, measured):
    assert measures_table(plain.read_json("summary.json")) is None
    screen = plain_console(width=132)
    with screen.capture() as capture:
        screen.print(measures_table(measured.read_json("summary.json")))
    text = " ".join(capture.get().split())
    for row in rows_of(measured):
        for name, number in (("direction", "alignment"), ("drift", "distance"), ("bound", "most")):
            assert f"{row['measures'][name][number]:.4g}" in text
    assert "not derived for: steps of adam; dropout" in text


def test_a_method_that_finetunes_nothing_measures_what_it_can_and_says_what_it_cannot(
    small, tmp_path
):
    config = small(
        method="lp", measures=["targets", "ntk", "bound", "exchange"], probe={"epochs": 2}
    )
    folder = run(config, tmp_path)
    (row,) = rows_of(folder)
    assert row["measures"]["targets"]["test"] == {"ring": pytest.approx(row["final"]["test"])}
    assert unmeasured(config.measures, folder.read_json("summary.json")) == ["ntk", "bound"]


def test_p_correct_of_a_regression_is_refused_before_anything_is_trained(small, tmp_path):
    task = {**SMALL["task"], "target_columns": ["size"]}
    config = small(task=task, measures=["confidence"], **BRIEF)
    with pytest.raises(ValueError, match=r"rings is a regression; leave confidence out"):
        run(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


DESCENT = Phase(trains="all", epochs=3, lr=0.01, batch_size=8, optimizer="sgd", momentum=0.0)


NORMED, PLAIN = (
    toy_network(),
    Network(
        Chain(
            {
                "low": Plain(nn.Sequential(nn.Linear(6, 8), nn.Tanh()), width=8),
                "high": Plain(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), width=8),
            }
        ),
        linear_head(8, 3),
    ),
)


def finetuned(phase, *, start=PLAIN, task=None, **recipe):
    """A branch that was really finetuned, by the generator that runs use."""
    task, end = task or toy_task(), deepcopy(start)
    method = Recipe(Phase(trains="head", epochs=0, lr=1.0), (phase,), **recipe)
    rng = torch.Generator().manual_seed(seed_for(0, method.stream))
    rows = fit(end, phase, task, rng=rng)
    return Branch(start, end, task, method, [{"phase": phase_name(0), **row} for row in rows], 0)


def bound_of(branch):
    return measure_branch(["bound"], branch)["bound"]


def test_the_bound_holds_for_plain_gradient_descent_without_batch_statistics():
    frozen = replace(DESCENT, batch_norm="frozen")
    for branch in (finetuned(DESCENT), finetuned(frozen, start=NORMED)):
        bound = bound_of(branch)
        assert bound["applies"] is bound["holds"] is True
        assert bound["beyond"] == []
        assert 0 < bound["distance"] < bound["most"]


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"lr": 0.001, "backbone_lr": 0.05}, 50),
        ({"lr": 0.001, "layer_decay": 0.5}, 0.5),
        ({"lr": 0.001, "backbone_lr": 0.01, "layer_decay": 0.5}, 5),
        # the weights that are kept have fewer steps behind them
        ({"lr": 0.3, "epochs": 12, "keep": "best", "patience": 3}, 1),
    ],
    ids=str,
)
def test_the_bound_has_rate_and_steps_of_the_backbone(changes, factor):
    phase = replace(DESCENT, **changes)
    branch = finetuned(phase)
    assert branch.epochs == 3 or (phase.keep == "best" and branch.epochs < 12)
    bound = bound_of(branch)
    expected = phase.lr * factor * 4 * branch.epochs * bound["beta"] * bound["gamma"]
    assert bound["constant"] == pytest.approx(expected)


def test_the_bound_of_a_pretraining_counts_the_steps_of_what_was_trained_on():
    whole = finetuned(DESCENT)
    task = whole.task
    sample = replace(task, splits={**task.splits, "train": task.rows("train")[:3]})
    bound = bound_of(replace(whole, task=sample, trained=task))
    expected = DESCENT.lr * 4 * whole.epochs * bound["beta"] * bound["gamma"]
    assert bound["constant"] == pytest.approx(expected)
    assert bound["beyond"] == ["a sample of what was trained on"]


def test_the_bound_is_not_derived_for_shares_of_sources():
    places = torch.arange(len(toy_task().rows("train")))
    task = replace(toy_task(), portions=(Portion(places, 2 * len(places)),))
    assert "shares of sources" in bound_of(finetuned(DESCENT, task=task))["beyond"]


def backwards(branch):
    return replace(branch, start=branch.end, end=branch.start)


@pytest.mark.parametrize(
    ("branch", "words"),
    [
        *(
            (partial(finetuned, replace(DESCENT, **changes)), words)
            for changes, words in (
                ({"optimizer": "adam", "momentum": 0.9}, "steps of adam"),
                ({"momentum": 0.5}, "momentum 0.5"),
                ({"weight_decay": 0.1}, "weight decay"),
                ({"anchor": 0.1}, "an anchor"),
                ({"smoothing": 0.1}, "label smoothing"),
            )
        ),
        (lambda: backwards(finetuned(DESCENT)), "an energy that did not fall"),
        (
            lambda: finetuned(
                replace(DESCENT, batch_norm="frozen"), start=toy_network(dropout=0.5)
            ),
            "dropout, batch statistics or augmentation",
        ),
        (
            lambda: finetuned(DESCENT, start=NORMED),
            "dropout, batch statistics or augmentation",
        ),
        (lambda: finetuned(DESCENT, alphas=(0.5,)), ""),
        (lambda: finetuned(DESCENT, task=replace(toy_task(), objective=ClassContrast())), ""),
    ],
)
def test_the_bound_names_what_it_is_not_derived_for(branch, words):
    bound = bound_of(branch())
    assert bound["applies"] is False
    assert words in bound["beyond"] if words else bound["beyond"]


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"batch_size": 2}, toy_network(dropout=0.5)),
        ({"batch_size": 30}, toy_network(dropout=0.5)),
        # nothing is learned: the statistics decide which epoch is kept
        ({"epochs": 6, "keep": "best"}, toy_network()),
        ({"running_statistics": 0.5}, toy_network(dropout=0.5)),
    ],
    ids=["2", "30", "best", "stochastic"],
)
def test_drift_is_the_whole_shift_of_a_finetuning_that_changes_no_weight(changes, start):
    branch = finetuned(replace(DESCENT, lr=1e-30, **changes), start=start)
    assert branch.epochs == 3 or ("keep" in changes and branch.epochs < 6)
    drift = measure_branch(["drift"], branch)["drift"]
    before, after = (
        take(network, evaluation_batches(branch.task, "train")).features
        for network in (branch.start, branch.end)
    )
    assert drift == pytest.approx(asdict(shift(before, after)))
    assert drift["distance"] > 0.05


def test_drift_of_a_repeat_is_that_of_its_own_random_numbers():
    dropping = toy_network(dropout=0.5)
    branch = finetuned(replace(DESCENT, lr=1e-30, batch_size=2), start=dropping, repeat=2)
    drift = measure_branch(["drift"], branch)["drift"]
    assert drift["distance"] == pytest.approx(branch.ends.shift.distance)


def test_drift_is_of_all_that_was_trained_on_where_a_sample_is_judged():
    branch = finetuned(replace(DESCENT, lr=1e-30, batch_size=2), start=toy_network(dropout=0.5))
    some = {**branch.task.splits, "train": branch.task.rows("train")[::3]}
    sampled = replace(branch, task=replace(branch.task, splits=some), trained=branch.task)
    drift = measure_branch(["drift"], sampled)["drift"]
    assert drift["distance"] == pytest.approx(sampled.ends.shift.distance)
    assert drift["distance"] != pytest.approx(branch.ends.shift.distance, rel=1e-3)


def by_threes(monkeypatch):
    """Splits pass in batches of three examples."""
    monkeypatch.setattr("molhpft.core.evaluate.EVALUATION_SIZE", 3)


@pytest.mark.parametrize("objective", [Multiclass(), Multilabel(), Squared()], ids=str)
def test_what_passes_in_batches_is_what_whole_splits_give(objective, monkeypatch):
    branch = finetuned(DESCENT, task=toy_task(objective))
    whole = [take(n, evaluation_batches(branch.task, "train")) for n in (branch.start, branch.end)]
    by_threes(monkeypatch)
    assert len(list(evaluation_batches(branch.task, "train"))) > 3
    bound = bound_of(branch)
    assert bound["distance"] == pytest.approx(shift(*(s.features for s in whole)).distance)
    assert bound["energy"] == pytest.approx(initial_energy(whole[0], objective))
    if objective.has_classes:
        found = measure_branch(["confidence"], branch)["confidence"]
        for when, snapshot in zip(("before", "after"), whole, strict=True):
            p = correct_probability(snapshot, objective)
            assert found["histogram"][when] == torch.histc(p, BINS, 0, 1).int().tolist()
            assert found["mean"][when] == pytest.approx(p.mean().item())
    scores = measure_branch(["targets"], branch)["targets"]
    for split in branch.task.splits:
        end = take(branch.end, evaluation_batches(branch.task, split))
        assert scores[split] == pytest.approx(target_scores(branch.task, end.logits, end.targets))


@pytest.mark.parametrize("name", ["confidence", "targets", "bound", "drift"])
def test_a_measure_keeps_no_features_and_logits_of_a_split(name, monkeypatch):
    by_threes(monkeypatch)
    branch = finetuned(DESCENT)
    made, most = [], 0

    def watch(_module, _inputs, output):
        nonlocal most
        most = max(most, sum(tensor() is not None for tensor in made))
        made.append(ref(output))

    for network in (branch.start, branch.end):
        for part in (network.backbone, network.head):
            part.register_forward_hook(watch)
    measure_branch([name], branch)
    assert len(made) > 20
    assert most <= 8  # of one batch through both networks, and of the batch before


def test_probe_examples_are_of_every_class(monkeypatch):
    monkeypatch.setattr(measuring, "PROBE_EXAMPLES", 50)
    y = torch.arange(300) // 100
    inputs = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    ordered = replace(toy_task(), examples=Rows(inputs, y), splits={"train": torch.arange(300)})
    labels = []
    network = deepcopy(PLAIN)
    network.head.register_forward_pre_hook(lambda _, args: labels.append(args[1].targets.item()))
    (callback,) = callbacks_along(["direction"], network, ordered, seed=0)
    labels.clear()
    callback.measure(network)
    assert sorted(labels.count(label) for label in range(3)) == [16, 17, 17]


def named(objective, names=("a", "b", "c")) -> Task:
    return replace(toy_task(objective), target_names=names)


@pytest.mark.parametrize("objective", [Multilabel(), Multilabel(metric="ap"), Squared()], ids=str)
def test_the_mean_over_targets_is_the_score_of_the_task(objective, rng):
    task = named(objective)
    targets = task.examples.targets
    logits = torch.randn(len(targets), 3, generator=rng)
    scores = target_scores(task, logits, targets)
    assert list(scores) == ["a", "b", "c"]
    assert sum(scores.values()) / 3 == pytest.approx(objective.score(logits, targets))


def test_a_target_that_cannot_be_scored_has_none_and_stops_no_other(rng):
    task = named(Multilabel())
    targets = task.examples.targets.clone()
    targets[:, 0], targets[:, 1] = NAN, 1.0
    logits = torch.randn(len(targets), 3, generator=rng)
    expected = pytest.approx(roc_auc_score(targets[:, 2], logits[:, 2]))
    assert target_scores(task, logits, targets) == {"a": None, "b": None, "c": expected}


def test_a_class_is_scored_by_its_own_units():
    classes = torch.tensor([0, 0, 0, 1, -100])
    logits = torch.eye(3)[torch.tensor([0, 0, 2, 1, 1])]
    scores = target_scores(named(Multiclass(), names=()), logits, classes)
    assert scores == {"class 0": pytest.approx(2 / 3), "class 1": 1.0, "class 2": None}


def test_a_class_with_a_broken_prediction_has_no_score_and_takes_that_of_no_other():
    logits = torch.eye(3)
    logits[1, 1] = NAN
    scores = target_scores(named(Multiclass()), logits, torch.arange(3))
    assert scores["a"] == scores["c"] == 1.0
    assert not isfinite(scores["b"])


def test_a_scaled_target_is_scored_in_its_own_unit(rng):
    scaled = Squared(mean=(0.0, 5.0, 0.0), std=(1.0, 10.0, 0.5))
    targets, logits = torch.randn(2, 20, 3, generator=rng)
    scores = target_scores(named(scaled), logits, targets)
    assert scores["b"] == pytest.approx(10 * Squared().score(logits[:, [1]], targets[:, [1]]))
    assert sum(scores.values()) / 3 == pytest.approx(scaled.score(logits, targets))


SMILES = ("CCO", "c1ccccc1N", "C1CC1", "C", "CC(=O)OC1CCCC1", "C#N", "CCCC", "O=C=O")
N = len(SMILES)
PHASE = Phase(trains="all", epochs=1, lr=1e-3, batch_size=4, optimizer="sgd", momentum=0.0)


def over_all(name, examples, objective, outputs):
    rows = torch.arange(N)
    return Task(name, examples, {"train": rows, "valid": rows}, objective, outputs)


def molecules(*columns):
    y = torch.tensor([[0.0, 1], [1, 0], [1, NAN], [0, NAN], [1, 1], [NAN, NAN], [0, 0], [1, 0]])
    return Molecules(pack(SMILES), torch.cat([y, *columns], dim=1), SMILES)


def images():
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (N, 3, 16, 16), dtype=torch.uint8, generator=rng)
    return Images(pixels, torch.arange(N) % 3)


def graph_task():
    ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    rng = torch.Generator().manual_seed(0)
    graphs = [
        Data(x=torch.randn(4, 5, generator=rng), edge_index=ring, y=torch.tensor([i % 2]))
        for i in range(N)
    ]
    splits = {"train": range(N), "valid": range(N)}
    return pyg_task(graphs, splits=splits, objective=Multiclass(), name="rings", classes=2)


def toy_digits(objective):
    inputs = torch.rand(N, 28 * 28, generator=torch.Generator().manual_seed(0))
    return over_all("toy", Rows(inputs, torch.arange(N) % 3), objective, 3)


def gcn_task():
    return over_all("molecules", molecules(), Multilabel(), 2)


def linear():
    task = linear_task()
    task = replace(task, splits={**task.splits, "valid": task.rows("train")})
    return task, linear_network(rng=torch.Generator().manual_seed(0))


def served_beside():
    auxiliary = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
    objective = Joint(Multilabel(), 2, (Part(Squared(), 3, 0.5),))
    return over_all("flyp", molecules(auxiliary), objective, 5)


DOMAINS = {
    "toy": lambda: (toy_digits(Multiclass()), Network(toy_mlp(), linear_head(128, 3))),
    "toy, class contrast": lambda: (
        toy_digits(ClassContrast()),
        Network(toy_mlp(), cosine_head(128, 3)),
    ),
    "vision": lambda: (
        over_all("images", images(), Multiclass(), 3),
        Network(cifar_resnet(), linear_head(64, 3)),
    ),
    "segmentation": lambda: (
        shapes_task(images=8, size=16),
        Network(segmentation_resnet(depth=18), aspp_head(512, 4, hidden=8, rates=(1, 2))),
    ),
    "graphs": lambda: (
        graph_task(),
        Network(gnn_backbone(GIN(5, 8, 2, norm="batch_norm")), linear_head(8, 2)),
    ),
    "molecules, pyg": lambda: (
        gcn_task(),
        Network(pyg_gnn(model="gin", layers=2, width=16), linear_head(16, 2)),
    ),
    "molecules": lambda: (gcn_task(), Network(ogb_gcn(layers=2, width=16), mlp_head(16, 2))),
    "molecules, virtual node": lambda: (
        gcn_task(),
        Network(ogb_gcn(layers=2, width=16, virtual_node=True), linear_head(16, 2)),
    ),
    "molecules, cut": lambda: (
        gcn_task(),
        Network(pretrain_gnns_gcn(layers=2, width=16), linear_head(16, 2)).cut("conv1"),
    ),
    "molecules, side-tuning": lambda: (
        gcn_task(),
        Network(side_tuned(ogb_gcn(layers=2, width=16)), linear_head(16, 2)),
    ),
    "molecules, flyp": lambda: (
        served_beside(),
        Network(ogb_gcn(layers=2, width=16), linear_head(16, 5)),
    ),
    "linear": linear,
}


@cache
def branch_of(domain):
    torch.manual_seed(0)
    task, start = DOMAINS[domain]()
    end = deepcopy(start)
    rows = fit(end, PHASE, task, rng=torch.Generator().manual_seed(0))
    recipe = Recipe(replace(PHASE, trains="head", epochs=0), (PHASE,))
    return Branch(start, end, task, recipe, [{"phase": phase_name(0), **row} for row in rows], 0)


def numbers_in(value):
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(part)
    elif isinstance(value, float):
        yield value


def results_of(name, branch):
    if name in ALONG:
        (callback,) = callbacks_along([name], branch.start, branch.task, seed=0)
        yield callback.measure(branch.end)
    if name in AT_END:
        yield measure_branch([name], branch)[name]
    if name in TOGETHER:
        yield measure_run([name], [branch.start, branch.end], branch.task)


QUICK = ("toy", "linear", "molecules")


@pytest.mark.parametrize("domain", [name if name in QUICK else slow(name) for name in DOMAINS])
def test_every_measure_runs_on_a_domain_or_refuses_it_before_training(domain):
    branch = branch_of(domain)
    for name in NAMES:
        if name == "confidence" and domain == "linear":
            with pytest.raises(ValueError, match=r"measure confidence is .* leave confidence out"):
                check_measures([name], branch.task)
            continue
        check_measures([name], branch.task)
        results = list(results_of(name, branch))
        numbers = list(numbers_in(results))
        assert numbers
        assert all(map(isfinite, numbers)), name
        if name == "decomposition":
            assert results[0]["first_order_error"] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["segmentation", "molecules"])
@pytest.mark.parametrize("name", NAMES)
def test_what_a_measure_takes_does_not_follow_width_or_image_size(name, domain, monkeypatch):
    monkeypatch.setattr(measuring, "PROBE_EXAMPLES", 50)
    begun = process_time()
    assert list(results_of(name, branch_of(domain)))
    assert process_time() - begun < 60  # seconds of a processor: the slowest takes a few


@pytest.mark.parametrize("outputs", [4, 400])
def test_the_head_is_asked_no_more_often_where_it_has_more_logits(outputs, monkeypatch):
    inputs = torch.rand(N, 28 * 28, generator=torch.Generator().manual_seed(0))
    task = over_all("wide", Rows(inputs, torch.zeros(N, outputs)), Squared(), outputs)
    asked = []
    network = Network(toy_mlp(), linear_head(128, outputs))
    (callback,) = callbacks_along(["direction"], network, task, seed=0)
    gradient = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: asked.append(1) or gradient(*a, **k)
    )
    callback.measure(network)
    assert len(asked) == measuring.PROBE_EXAMPLES * min(outputs, 16)
