"""Tasks and networks from a config: they fit together and start from the right weights."""

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from molhpft.config.build import build_network, build_recipes, build_task, check_splits
from molhpft.config.registry import TASKS
from molhpft.config.schema import parse_config
from molhpft.core.data import Rows, Task
from molhpft.core.evaluate import take
from molhpft.core.objectives import Multiclass
from molhpft.domains.molecules.pretraining import pretraining_task
from molhpft.domains.molecules.tables import csv_task
from molhpft.domains.vision.examples import Images
from molhpft.domains.vision.resnet import cifar_resnet
from molhpft.domains.weights import read_weights
from molhpft.run.run import run
from tests.runs import FLYP, SMALL, network_of, task_of
from tests.toy import same_weights, toy_task


@pytest.fixture(scope="module")
def pretrained(small, tmp_path_factory):
    """Weights of another seed, whose head is for the number of atoms."""
    task = {**SMALL["task"], "target_columns": ["size"]}
    config = small(task=task, method="scratch", finetune={"epochs": 0}, seed=1)
    return run(config, tmp_path_factory.mktemp("pretrained")).path / "model.safetensors"


def with_weights(small, weights, **changes):
    return small(encoder={**SMALL["encoder"], "weights": str(weights)}, **changes)


CONVOLUTION = "stages.conv{}.convolution.linear.weight"


def test_an_encoder_starts_from_its_file_and_scratch_does_not(small, pretrained):
    weights, key = read_weights(pretrained).tensors, CONVOLUTION.format(0)
    loaded, scratch, fresh = (
        network_of(config).backbone.state_dict()[key]
        for config in (
            with_weights(small, pretrained),
            with_weights(small, pretrained, method="scratch"),
            small(method="scratch"),
        )
    )
    assert torch.equal(loaded, weights["backbone." + key])
    assert torch.equal(scratch, fresh)
    assert not torch.equal(loaded, fresh)


def test_zero_shot_takes_the_classifier_of_a_supervised_resnet(tmp_path):
    torch.manual_seed(0)
    trained, classifier = cifar_resnet(depth=20), torch.nn.Linear(64, 10)
    blocks = re.compile(r"stages\.(?:(layer\d)_(\d+)|stem)\.module\.")
    tensors = {
        blocks.sub(lambda m: f"{m[1]}.{m[2]}." if m[1] else "", name): value
        for name, value in trained.state_dict().items()
    }
    tensors |= {f"linear.{n}": t for n, t in classifier.state_dict().items()}
    torch.save({f"module.{n}": t for n, t in tensors.items()}, tmp_path / "w.th")
    encoder = {"name": "cifar_resnet", "weights": str(tmp_path / "w.th")}
    config = parse_config({"task": "nci_alerts", "encoder": encoder, "method": "zero_shot"})
    (recipe,) = build_recipes(config)
    images = Images(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4))
    task = Task("ten", images, {"train": torch.arange(4)}, Multiclass(), outputs=10)
    network = build_network(config, task, recipe)
    assert same_weights(network.backbone, trained)
    assert torch.equal(network.head.stages["linear"].module.weight, classifier.weight)
    three = replace(task, outputs=3)
    with pytest.raises(ValueError, match=r"weight \(3, 64\), .* it has .*weight \(10, 64\)"):
        build_network(config, three, recipe)


def test_a_partial_backbone_keeps_the_file_below_the_cut_and_is_random_above(small, pretrained):
    cut, weights = (
        network_of(with_weights(small, pretrained, cut="conv1")),
        read_weights(pretrained),
    )
    assert cut.backbone.names == ["embed", "conv0"]
    assert cut.head.names == ["conv1", "pool", "linear"]
    below, above = cut.backbone.state_dict(), cut.head.state_dict()
    lower, upper = CONVOLUTION.format(0), CONVOLUTION.format(1)
    assert torch.equal(below[lower], weights.tensors["backbone." + lower])
    assert not torch.equal(above[upper], weights.tensors["backbone." + upper])
    assert torch.equal(above[upper], network_of(small(cut="conv1")).head.state_dict()[upper])


def test_side_tuning_starts_from_the_features_of_the_encoder(small, pretrained):
    config = with_weights(small, pretrained, method="side_tuning")
    side, plain = network_of(config), network_of(with_weights(small, pretrained))
    recipe = build_recipes(config)[0]
    batch = build_task(config, recipe).examples.take(torch.arange(5))
    ours, theirs = (n.eval().features(batch).detach() for n in (side, plain))
    torch.testing.assert_close(ours, theirs)


def test_heads_of_two_tasks_share_no_random_number():
    task, recipe = toy_task(), build_recipes(parse_config({"task": "toy"}))[0]
    task = replace(task, examples=Rows(torch.zeros(90, 784), task.examples.targets))
    first, second = (
        build_network(parse_config({"task": name, "encoder": "toy_mlp"}), given, recipe).head
        for name in ("toy", "toy_pretraining")
        for given in [replace(task, name=name)]
    )
    one, other = (head.state_dict()["stages.linear.module.weight"] for head in (first, second))
    assert not (one == other).any()


def test_a_network_is_the_same_under_any_name_of_the_tables_file(small, table, tmp_path):
    config, renamed = small(method="ft"), tmp_path / "copy.csv"
    renamed.write_bytes(table.read_bytes())
    task = replace(config.task, options=config.task.options | {"path": renamed})
    assert same_weights(network_of(config), network_of(replace(config, task=task)))


def test_flyp_keeps_the_pretrained_head_beside_the_new_one(small, sizes, pretrained, tmp_path):
    config = with_weights(small, pretrained, method=FLYP)
    weights = read_weights(pretrained).tensors
    key = "stages.linear.module.weight"
    assert torch.equal(network_of(config).head.state_dict()[key][1:], weights["head." + key])
    headless = tmp_path / "headless.safetensors"
    save_file({k: v for k, v in weights.items() if "head" not in k}, headless)
    words = r"flyp keeps the pretrained head, and .* has none that fits"
    with pytest.raises(ValueError, match=words):
        network_of(with_weights(small, headless, method=FLYP))


def test_the_pretrained_head_that_flyp_keeps_reads_nothing_beside_features(
    small, sizes, pretrained
):
    head = {"name": "linear", "beside": ["properties"]}
    own = network_of(with_weights(small, pretrained, method=FLYP, head=head)).head.state_dict()
    weights = read_weights(pretrained).tensors
    key, bias = (f"stages.linear.module.{name}" for name in ("weight", "bias"))
    width = weights["head." + key].shape[1]
    assert own[key].shape[1] == width + 79
    assert torch.equal(own[key][1:, :width], weights["head." + key])
    assert torch.equal(own[bias][1:], weights["head." + bias])
    assert not own[key][1:, width:].any()
    assert own[key][0, width:].all()


def test_columns_beside_features_stand_in_front_of_the_head_of_a_partial_backbone(
    small, pretrained
):
    head = {"name": "linear", "beside": ["torsions"]}
    cut = network_of(with_weights(small, pretrained, cut="conv1", head=head))
    plain = network_of(with_weights(small, pretrained, cut="conv1"))
    assert cut.head.names == ["conv1", "pool", "beside", "linear"]
    key = CONVOLUTION.format(1)
    assert torch.equal(cut.head.state_dict()[key], plain.head.state_dict()[key])


def test_only_molecules_have_what_a_head_reads_beside_features():
    head = {"name": "mlp", "beside": ["properties"]}
    words = "head.beside reads properties of molecules, and task toy_.* has rows; leave head.beside"
    with pytest.raises(ValueError, match=words):
        task_of(parse_config({"task": TOY, "encoder": "toy_mlp", "head": head}))


def test_a_run_on_standardised_features_leaves_an_encoder_like_any_other(
    small, pretrained, tmp_path
):
    config = with_weights(small, pretrained, standardise=True, method="ft")
    network = network_of(config)
    assert network.backbone.names[-1] == "standardised"
    z = take(network, task_of(config).batches("train", size=16)).features
    assert z.mean(0).abs().max() < 1e-5
    again = network_of(with_weights(small, run(config, tmp_path).path / "model.safetensors"))
    assert again.backbone.names == network.backbone.names[:-1]


TOY = {"name": "toy", "per_class": 4}
ASPP = {"name": "segmentation_resnet", "depth": 18, "channels": 1}
SHAPES = {"name": "shapes", "images": 8, "size": 16}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": "cifar_resnet"}, "encoder cifar_resnet reads images, and task rings has mol"),
        (
            {"head": "aspp"},
            "head aspp reads feature maps, and encoder gcn gives vectors; heads for it: linear, ml",
        ),
        ({"cut": "conv9"}, "no stage named 'conv9'; this chain has: embed, conv0"),
        ({"cut": "conv1", "standardise": True}, "whole encoder gives, and cut: conv1 leaves a par"),
        (
            {"method": FLYP, "standardise": True},
            "method flyp keeps the head of the pretraining, which reads features as they are",
        ),
        (
            {"method": "zero_shot", "head": {"name": "linear", "beside": ["morgan"]}},
            "method zero_shot keeps the head .* features alone; leave head.beside out",
        ),
        ({"cut": "embed"}, "cut: embed leaves no backbone to transfer"),
        ({"method": "flyp_contrast"}, "class contrast is for tasks with classes; rings is multil"),
        (
            {"method": {**FLYP, "pretraining": "nci_descriptor"}},
            r"unknown method\.pretraining nci_descriptor; did you mean nci_d",
        ),
        (
            {"method": "side_tuning", "finetune": {"unfreeze_every": 2}},
            r"unfreeze_every 2 trains one stage .* more each time, .* are: blend; leave",
        ),
        ({"method": "gradual", "cut": "conv0"}, "unfreeze_every 1 trains one .* are: embed; leave"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("sizes")
def test_what_does_not_go_together_is_refused_before_training(small, changes, words):
    with pytest.raises(ValueError, match=words):
        network_of(small(**changes))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"task": TOY, "encoder": "toy_mlp", "views": 3}, "task toy_.* does not augment its"),
        (
            {"task": TOY, "encoder": {"name": "toy_mlp", "inputs": 10}},
            "encoder.inputs is 10, and examples of task toy_.* have 784 inputs",
        ),
        (
            {"task": SHAPES, "head": "aspp", "encoder": ASPP},
            "encoder.channels is 1, and examples of task shapes have 3 channels",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_the_examples_is_refused_before_training(raw, words):
    with pytest.raises(ValueError, match=words):
        network_of(parse_config(raw))


def test_a_split_that_cannot_be_scored_is_refused_before_training(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("smiles,y,fold\nC,1,train\nCC,0,train\nCCC,1,valid\nCCCC,0,test\n")
    task = {"name": "csv", "path": str(path), "target_columns": "y"}
    config = parse_config({"task": {**task, "split": "column", "split_column": "fold"}})
    with pytest.raises(ValueError, match=r"split 'valid' of few \(1 molecules\) cannot be scored"):
        task_of(config)


def test_a_pretraining_split_without_any_target_is_refused_as_its_loss_would_be_0(tmp_path):
    chains, path = ["C" * n for n in range(1, 41)], tmp_path / "chains.csv"

    def labelled(rows):
        cells = [f"{s},{k % 2 if k in rows else ''}" for k, s in enumerate(chains)]
        path.write_text("\n".join(["smiles,y", *cells]))
        return pretraining_task(of=(path,), targets=("assays",), split="random")

    whole = labelled(range(40))
    check_splits(whole)
    task = labelled(whole.splits["train"].tolist())
    with pytest.raises(ValueError, match=r"split 'valid' of .* none of its molecules has a target"):
        check_splits(task)


def test_flyp_refuses_a_pretrained_head_of_more_or_fewer_targets(
    small, table, pretrained, monkeypatch
):
    both = csv_task(path=table, target_columns=("size", "ring"), kind="regression")
    monkeypatch.setitem(TASKS, "sizes", lambda: both)
    with pytest.raises(ValueError, match=r"flyp keeps .* none that fits .* of \(2, 8\)"):
        network_of(with_weights(small, pretrained, method=FLYP))
