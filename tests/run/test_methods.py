"""Every method of the catalog through whole runs, with every head, and with a cut."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.registry import HEADS, METHODS
from molhpft.config.schema import parse_config
from molhpft.core.evaluate import predict, take
from molhpft.domains.weights import read_weights
from molhpft.run.branch import predictions, scores
from molhpft.run.run import run
from tests.runs import SMALL, rows_of
from tests.toy import same_weights

OPTIONS = {
    "hp_ft": {"tau": [0, 3]},
    "ls_hp_ft": {"tau": [3]},
    "ls_everywhere": {"tau": [3]},
    "opposite_energy": {"tau": [3]},
    "wise_ft": {"tau": [3], "alphas": [0.0, 0.5, 1.0]},
    "lp_logistic": {"inverse_penalties": [0.01, 1.0]},
    "lp_ft_converged": {"inverse_penalties": [0.01, 1.0]},
}
NOT_FOR_THIS_TASK = {"flyp": "see below", "flyp_contrast": "the table has no class ids"}
RUNNABLE = [name for name in METHODS if name not in NOT_FOR_THIS_TASK]
BRIEF = {"probe": {"lr": 0.01, "epochs": 4}, "finetune": {"epochs": 2, "lr": 0.003}}


def method(name):
    return {"name": name, **OPTIONS.get(name, {})}


def around(config, folder):
    """The chosen branch, its network when it was built and when it was left, and the task."""
    summary = folder.read_json("summary.json")
    (row,) = [row for row in summary["branches"] if row["tau"] == summary["chosen_tau"]]
    start, end = network_of(config), network_of(config)
    end.load_state_dict(read_weights(folder.path / "model.safetensors").tensors)
    return row, start, end, build_task(config, build_recipes(config)[0])


SOLVED = ("lp_logistic", "lp_ft_converged")
PROBES = ("lp", "lp_logistic")


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_method_reports_scores_and_shift_of_the_model_it_leaves(small, tmp_path, name):
    more = {} if name in SOLVED else {"head": "mlp", "cut": "conv1"}
    config = small(method=method(name), **more, **BRIEF)
    row, start, end, task = around(config, run(config, tmp_path))
    assert scores(predictions(end, task), task) == pytest.approx(row["final"])
    z0, z = (take(network, task.batches("train", size=64)).features for network in (start, end))
    moved = (z - z0).norm(dim=1).mean().item()
    assert row["shift"]["distance"] == pytest.approx(moved, rel=1e-4, abs=1e-6)
    # probing alone leaves features where they are, as does a mixture of none of the finetuned
    assert (moved == 0) == (name in PROBES or row.get("alpha") == 0)
    if name in PROBES:
        assert row["final"] == row["probe"]


def test_lp_ft_from_a_solved_head_begins_where_the_solution_ended(small, tmp_path):
    solved, tuned = (rows_of(run(small(method=method(n), **BRIEF), tmp_path))[0] for n in SOLVED)
    assert tuned["inverse_penalty"] == solved["inverse_penalty"]
    assert tuned["probe"] == pytest.approx(solved["final"])
    assert tuned["energy"] == pytest.approx(solved["energy"])
    assert tuned["shift"]["distance"] > 0


@pytest.mark.parametrize("head", [name for name, h in HEADS.items() if h.reads == "vectors"])
@pytest.mark.parametrize("cut", [None, "pool", "conv1"])
def test_every_head_goes_with_every_cut(small, tmp_path, head, cut):
    config = small(method=method("hp_ft"), head=head, cut=cut, **BRIEF)
    folder = run(config, tmp_path)
    lines = (folder.path / "history.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if row["phase"] == "probe"]
    assert losses[-1] < losses[0]
    assert len(rows_of(folder)) == 2


@pytest.mark.parametrize("name", SOLVED)
def test_a_head_that_cannot_be_solved_is_refused_in_words(small, tmp_path, name):
    with pytest.raises(ValueError, match="a head can be solved when it is one linear layer"):
        run(small(method=method(name), head="mlp"), tmp_path)


@pytest.fixture(scope="module")
def pretrained(small, tmp_path_factory):
    folder = run(small(method="scratch", **BRIEF), tmp_path_factory.mktemp("pretrained"))
    return folder.path / "model.safetensors"


def network_of(config):
    recipe = build_recipes(config)[0]
    return build_network(config, build_task(config, recipe), recipe)


def with_weights(small, pretrained, **changes):
    return small(encoder={**SMALL["encoder"], "weights": str(pretrained)}, **changes)


def test_a_partial_backbone_keeps_the_file_below_the_cut_and_is_random_above(small, pretrained):
    cut = network_of(with_weights(small, pretrained, cut="conv1"))
    weights = read_weights(pretrained).tensors
    assert cut.backbone.names == ["embed", "conv0"]
    assert cut.head.names == ["conv1", "pool", "linear"]
    key = "stages.conv{}.convolution.linear.weight"
    below, above = cut.backbone.state_dict(), cut.head.state_dict()
    assert torch.equal(below[key.format(0)], weights["backbone." + key.format(0)])
    assert not torch.equal(above[key.format(1)], weights["backbone." + key.format(1)])
    fresh = network_of(small(cut="conv1")).head.state_dict()
    assert torch.equal(above[key.format(1)], fresh[key.format(1)])


def test_a_cut_where_no_stage_is_names_the_stages(small):
    with pytest.raises(ValueError, match="no stage named 'conv9'; this chain has: embed, conv0"):
        network_of(small(cut="conv9"))


def test_a_cut_below_everything_is_refused(small):
    with pytest.raises(ValueError, match="cut: embed leaves no backbone to transfer"):
        network_of(small(cut="embed"))


def test_heads_of_two_tasks_share_no_random_number(small):
    recipe = build_recipes(small())[0]
    task = build_task(small(), recipe)
    first, second = (
        build_network(parse_config({**NCI, "task": name}), replace(task, name=name), recipe).head
        for name in ("nci_alerts", "nci_descriptors")
    )
    assert not same_weights(first, second)


def test_side_tuning_starts_from_the_features_of_the_encoder(small, pretrained):
    config = with_weights(small, pretrained, method="side_tuning")
    side, plain = network_of(config), network_of(with_weights(small, pretrained))
    recipe = build_recipes(config)[0]
    batch = build_task(config, recipe).examples.take(torch.arange(5))
    ours, theirs = (n.eval().features(batch).detach() for n in (side, plain))
    torch.testing.assert_close(ours, theirs)


def test_a_mixture_of_only_the_probed_weights_is_the_probe(small, tmp_path):
    wise = {"name": "wise_ft", "tau": [3], "alphas": [0.0]}
    (row,) = rows_of(run(small(method=wise, **BRIEF), tmp_path))
    assert row["alpha"] == 0.0
    assert row["final"] == pytest.approx(row["probe"])
    assert row["shift"]["distance"] == pytest.approx(0, abs=1e-5)


def test_a_mixture_of_only_the_finetuned_weights_is_finetuning(small, tmp_path):
    wise = {"name": "wise_ft", "tau": [3], "alphas": [1.0]}
    (mixed,) = rows_of(run(small(method=wise, **BRIEF), tmp_path))
    (tuned,) = rows_of(run(small(method={"name": "hp_ft", "tau": [3]}, **BRIEF), tmp_path))
    assert mixed["final"] == tuned["final"]


def test_a_solved_head_is_that_of_the_strength_which_validates_best(small, tmp_path):
    def solved(*inverse_penalties):
        options = {"name": "lp_logistic", "inverse_penalties": list(inverse_penalties)}
        return rows_of(run(small(method=options), tmp_path))[0]

    inverse_penalties = OPTIONS["lp_logistic"]["inverse_penalties"]
    alone = {strength: solved(strength)["final"] for strength in inverse_penalties}
    both = solved(*inverse_penalties)
    assert both["final"] == alone[both["inverse_penalty"]]
    assert both["final"]["valid"] == max(final["valid"] for final in alone.values())


NCI = {
    "task": "nci_alerts",
    "encoder": {"name": "gcn", "layers": 1, "width": 8},
    "finetune": {"epochs": 1, "lr": 0.001},
}
FLYP = {"name": "flyp", "pretraining": "nci_descriptors", "tau": [0, 1]}


@pytest.fixture(scope="module")
def nci_encoder(tmp_path_factory):
    config = parse_config({**NCI, "task": "nci_descriptors", "method": "scratch"})
    return run(config, tmp_path_factory.mktemp("nci")).path / "model.safetensors"


def nci(weights, **changes):
    return parse_config({**NCI, "encoder": {**NCI["encoder"], "weights": weights}, **changes})


@pytest.mark.slow
def test_flyp_keeps_the_pretrained_head_beside_the_new_one(nci_encoder):
    network = network_of(nci(nci_encoder, method=FLYP))
    ours = network.head.state_dict()["stages.linear.module.weight"]
    theirs = read_weights(nci_encoder).tensors["head.stages.linear.module.weight"]
    assert torch.equal(ours[5:], theirs)


def test_flyp_runs_and_is_scored_on_the_new_task(nci_encoder, tmp_path):
    config = nci(nci_encoder, method=FLYP)
    row, _, network, _ = around(config, run(config, tmp_path))
    task = build_task(nci(nci_encoder), build_recipes(nci(nci_encoder))[0])
    test = predict(network, task, "test")
    new = task.objective.score(test.logits[:, : task.outputs], test.targets)
    assert row["final"]["test"] == pytest.approx(new)


def test_flyp_without_a_pretrained_head_is_refused(nci_encoder, tmp_path):
    from safetensors.torch import save_file

    encoder = {k: v for k, v in read_weights(nci_encoder).tensors.items() if "head" not in k}
    save_file(encoder, tmp_path / "headless.safetensors")
    with pytest.raises(
        ValueError, match=r"flyp keeps the pretrained head, and .* has none that fits"
    ):
        network_of(nci(tmp_path / "headless.safetensors", method=FLYP))


def test_flyp_on_an_unknown_task_names_the_tasks(nci_encoder):
    wrong = {**FLYP, "pretraining": "nci_descriptor"}
    with pytest.raises(ValueError, match=r"method\.pretraining nci_descriptor; did you mean nci_d"):
        network_of(nci(nci_encoder, method=wrong))


def test_contrast_is_for_tasks_with_classes(nci_encoder):
    with pytest.raises(ValueError, match="class contrast is for tasks with classes; nci_alerts is"):
        network_of(nci(nci_encoder, method="flyp_contrast"))


def test_an_encoder_of_other_examples_is_refused(small):
    with pytest.raises(
        ValueError, match="encoder cifar_resnet reads images, and task rings has mol"
    ):
        network_of(small(encoder="cifar_resnet"))


def test_a_head_of_other_features_names_those_that_fit(small):
    wrong = "head aspp reads feature maps, and encoder gcn gives vectors; heads for it: linear, mlp"
    with pytest.raises(ValueError, match=wrong):
        network_of(small(head="aspp"))


SHAPES = {
    "task": {"name": "shapes", "images": 24, "size": 32},
    "encoder": {"name": "segmentation_resnet", "depth": 18},
    "head": {"name": "aspp", "hidden": 8, "rates": [1, 2]},
    "method": {"name": "hp_ft", "tau": [1]},
    "probe": {"lr": 0.01, "batch_size": 8},
    "finetune": {"epochs": 1, "lr": 0.001, "batch_size": 8},
}


def test_segmentation_runs_and_is_scored_by_overlap(tmp_path):
    config = parse_config(SHAPES)
    folder = run(config, tmp_path)
    assert folder.read_json("summary.json")["metric"] == "miou"
    row, _, network, task = around(config, folder)
    assert row["final"] == pytest.approx(scores(predictions(network, task), task))


def test_views_cannot_be_cached_for_a_head_that_reads_the_image_size(tmp_path):
    with pytest.raises(ValueError, match=r"upsample read the batch: probe live \(views: live\)"):
        run(parse_config({**SHAPES, "views": 2}), tmp_path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Forty noisy pictures of two classes, bright on the left or on the right."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("pictures") / "p.npz"
    y = np.arange(40) % 2
    x = rng.integers(0, 100, (40, 16, 16, 3), dtype=np.uint8)
    for image, side in zip(x, y, strict=True):
        image[:, 8 * side : 8 * side + 8] += 120
    np.savez(path, x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return path


def test_each_way_to_see_augmented_images_gives_a_head_of_its_own(pictures, tmp_path):
    task = {"name": "image_npz", "path": str(pictures), "size": 16, "augment": "flip_crop"}
    base = {**SHAPES, "task": task, "encoder": "cifar_resnet", "head": "linear"}
    energies = {
        views: rows_of(run(parse_config({**base, "views": views}), tmp_path))[0]["energy"]["aie"]
        for views in (0, 2, "live")
    }
    assert len(set(energies.values())) == 3
