"""Every method of the catalog through whole runs, with heads, cuts and domains."""

import numpy as np
import pytest

from molhpft.config.registry import METHODS
from molhpft.config.schema import parse_config
from molhpft.core.evaluate import predict, take
from molhpft.domains.weights import read_weights
from molhpft.results.table import read_results
from molhpft.run.branch import predictions, scores
from molhpft.run.run import run
from tests.runs import FLYP, SMALL, network_of, rows_of, task_of

OPTIONS = {
    "hp_ft": {"tau": [0, 3]},
    "ls_hp_ft": {"tau": [3]},
    "ls_everywhere": {"tau": [3]},
    "opposite_energy": {"tau": [3]},
    "surgical": {"stages": ["conv0"]},
    "wise_ft": {"tau": [3], "alphas": [0.0, 0.5, 1.0]},
    "dwise_ft": {"tau": [3], "steps": 3},
    "uniform_soup": {"tau": [0, 3]},
    "greedy_soup": {"tau": [0, 3]},
    "lp_logistic": {"inverse_penalties": [0.01, 1.0]},
    "lp_ft_converged": {"inverse_penalties": [0.01, 1.0]},
}
BRIEF = {"probe": {"lr": 0.01, "epochs": 4}, "finetune": {"epochs": 2, "lr": 0.003}}


def method(name):
    return {"name": name, **OPTIONS.get(name, {})}


def around(config, folder):
    """The chosen branch, its network when it was built and when it was left, and the task."""
    summary = folder.read_json("summary.json")
    (row,) = [row for row in summary["branches"] if row["tau"] == summary["chosen_tau"]]
    start, end = network_of(config), network_of(config)
    end.load_state_dict(read_weights(folder.path / "model.safetensors").tensors)
    return row, start, end, task_of(config)


SOLVED = ("lp_logistic", "lp_ft_converged")
PROBES = ("lp", "lp_logistic")


# the table has no class ids for a contrast; FLYP and zero_shot keep a head, see below
OTHERS = ("flyp", "flyp_contrast", "zero_shot")


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OTHERS])
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


def test_zero_shot_scores_the_head_that_the_weights_come_with_and_trains_nothing(small, tmp_path):
    tuned = run(small(method=method("hp_ft"), **BRIEF), tmp_path)
    encoder = {**SMALL["encoder"], "weights": str(tuned.path / "model.safetensors")}
    folder = run(small(method="zero_shot", encoder=encoder), tmp_path)
    (row,) = rows_of(folder)
    chosen = tuned.read_json("summary.json")["chosen_tau"]
    (learned,) = [one for one in rows_of(tuned) if one["tau"] == chosen]
    assert row["final"] == row["probe"] == pytest.approx(learned["final"])
    assert row["shift"]["distance"] == 0
    assert row["tau"] is folder.read_json("summary.json")["chosen_tau"] is None
    assert folder.read_lines("history.jsonl") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": SMALL["encoder"]}, "takes the head in the encoder's .* set encoder.weights"),
        ({"cut": "conv1"}, "trains nothing, and cut: conv1 leaves random stages"),
        ({"standardise": True}, "reads features as they are; set standardise: false"),
        ({"head": "mlp"}, r"should be one of stages.hidden.* it has stages.linear.module.bias"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_zero_shot_without_a_head_that_fits_is_refused(changes, message, small, tmp_path):
    tuned = run(small(method=method("hp_ft"), **BRIEF), tmp_path)
    encoder = {**SMALL["encoder"], "weights": str(tuned.path / "model.safetensors")}
    with pytest.raises(ValueError, match=message):
        run(small(**{"method": "zero_shot", "encoder": encoder, **changes}), tmp_path)


def test_zero_shot_refuses_a_head_that_reads_standardised_features(small, tmp_path):
    tuned = run(small(method=method("hp_ft"), standardise=True, **BRIEF), tmp_path)
    encoder = {**SMALL["encoder"], "weights": str(tuned.path / "model.safetensors")}
    with pytest.raises(ValueError, match="reads standardised features"):
        run(small(method="zero_shot", encoder=encoder), tmp_path)


def test_lp_ft_from_a_solved_head_begins_where_the_solution_ended(small, tmp_path):
    solved, tuned = (rows_of(run(small(method=method(n), **BRIEF), tmp_path))[0] for n in SOLVED)
    assert tuned["inverse_penalty"] == solved["inverse_penalty"]
    assert tuned["probe"] == pytest.approx(solved["final"])
    assert tuned["energy"] == pytest.approx(solved["energy"])
    assert tuned["shift"]["distance"] > 0


@pytest.mark.parametrize("name", SOLVED)
def test_a_solved_head_is_of_no_tau(small, tmp_path, name):
    folder = run(small(method=method(name), **BRIEF), tmp_path)
    summary = folder.read_json("summary.json")
    assert summary["chosen_tau"] is None
    assert [row["tau"] for row in summary["branches"]] == [None]
    assert {row["tau"] for row in folder.read_lines("history.jsonl")} <= {None}
    table = read_results(tmp_path).table
    assert table["tau"].isna().all()
    assert table["epochs"].tolist() == [0 if name in PROBES else 2]


@pytest.mark.parametrize(("head", "cut"), [("linear", "pool"), ("cosine", "conv1"), ("mlp", None)])
def test_every_head_goes_with_a_cut(small, tmp_path, head, cut):
    folder = run(small(method=method("hp_ft"), head=head, cut=cut, **BRIEF), tmp_path)
    losses = [r["loss"] for r in folder.read_lines("history.jsonl") if r["phase"] == "probe"]
    assert losses[-1] < losses[0]
    assert len(rows_of(folder)) == 2


def test_mixtures_of_one_end_alone_are_the_probe_and_finetuning(small, tmp_path):
    (tuned,) = rows_of(run(small(method={"name": "hp_ft", "tau": [3]}, **BRIEF), tmp_path))
    for alpha, final in ((0.0, tuned["probe"]), (1.0, tuned["final"])):
        wise = {"name": "wise_ft", "tau": [3], "alphas": [alpha]}
        (row,) = rows_of(run(small(method=wise, **BRIEF), tmp_path))
        assert row["alpha"] == alpha
        assert row["final"] == pytest.approx(final)
        assert (row["shift"]["distance"] < 1e-5) == (alpha == 0)


def test_a_mixture_by_stage_of_no_steps_is_finetuning(small, tmp_path):
    (tuned,) = rows_of(run(small(method={"name": "hp_ft", "tau": [3]}, **BRIEF), tmp_path))
    stagewise = {"name": "dwise_ft", "tau": [3], "steps": 0}
    (row,) = rows_of(run(small(method=stagewise, **BRIEF), tmp_path))
    assert row["final"] == tuned["final"]
    assert set(row["alphas"].values()) == {1.0}
    assert {"embed", "conv0", "conv1", "head"} == set(row["alphas"])


@pytest.mark.usefixtures("sizes")
def test_flyp_goes_on_serving_another_task_and_is_scored_on_its_own(small, tmp_path):
    task = {**SMALL["task"], "target_columns": ["size"]}
    pretrained = run(small(task=task, method="scratch", **BRIEF), tmp_path)
    encoder = {**SMALL["encoder"], "weights": str(pretrained.path / "model.safetensors")}
    config = small(encoder=encoder, method=FLYP, **BRIEF)
    folder = run(config, tmp_path)
    row, _, network, joint = around(config, folder)
    assert joint.outputs == 2
    assert folder.read_json("summary.json")["auxiliary"] == joint.auxiliary != ""
    assert "auxiliary" not in pretrained.read_json("summary.json")
    task = task_of(small())
    test = predict(network, task, "test")
    own = task.objective.score(test.logits[:, : task.outputs], test.targets)
    assert row["final"]["test"] == pytest.approx(own)


SHAPES = {
    "task": {"name": "shapes", "images": 24, "size": 32},
    "encoder": {"name": "segmentation_resnet", "depth": 18},
    "head": {"name": "aspp", "hidden": 8, "rates": [1, 2]},
    "method": {"name": "hp_ft", "tau": [1]},
    "probe": {"lr": 0.01, "batch_size": 8},
    "finetune": {"epochs": 1, "lr": 0.001, "batch_size": 8},
}


@pytest.mark.slow
def test_segmentation_runs_and_is_scored_by_overlap(tmp_path):
    config = parse_config(SHAPES)
    folder = run(config, tmp_path)
    assert folder.read_json("summary.json")["metric"] == "miou"
    row, _, network, task = around(config, folder)
    assert row["final"] == pytest.approx(scores(predictions(network, task), task))


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
