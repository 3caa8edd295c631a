"""Whole runs, small: what they write, choose, repeat and resume."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from molhpft.config import measures as measuring
from molhpft.config.build import build_recipes
from molhpft.config.schema import Choice, parse_config, resolved
from molhpft.core.determinism import seed_for
from molhpft.domains.molecules.tables import csv_task
from molhpft.domains.weights import read_weights
from molhpft.run import resume
from molhpft.run import run as running
from molhpft.run.branch import predictions, scores
from molhpft.run.device import launch, settled
from molhpft.run.folder import RunFolder
from molhpft.run.resume import SavedPhase
from molhpft.run.run import run
from molhpft.tuning.distributed import Machine
from molhpft.tuning.fit import fit
from tests.kills import killed_at_save
from tests.runs import SMALL, files_of, network_of, rows_of, task_of


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    return run(small(features=True), tmp_path_factory.mktemp("runs"))


def test_a_run_folder_holds_what_the_design_says(finished):
    names = sorted(p.name for p in finished.path.iterdir())
    assert names == [
        "config.yaml",
        "features.npz",
        "history.jsonl",
        "manifest.json",
        "model.safetensors",
        "molecules.json",
        "summary.json",
    ]


def test_the_written_config_is_the_config(finished, small):
    written = yaml.safe_load((finished.path / "config.yaml").read_text())
    assert parse_config(written) == small(features=True)


def test_the_saved_model_is_that_of_the_tau_that_validates_best(finished, small):
    config, summary = small(features=True), finished.read_json("summary.json")
    chosen = max(summary["branches"], key=lambda row: row["final"]["valid"])
    assert summary["chosen_tau"] == chosen["tau"]
    task, network = task_of(config), network_of(config)
    network.load_state_dict(read_weights(finished.path / "model.safetensors").tensors)
    assert scores(predictions(network, task), task) == chosen["final"]
    with np.load(finished.path / "features.npz") as arrays:
        moved = arrays["train_after"] - arrays["train_before"]
    distance = np.linalg.norm(moved, axis=1).mean()
    assert distance == pytest.approx(chosen["shift"]["distance"], rel=1e-5)


def test_history_has_every_epoch_of_every_phase(finished):
    phases = [(line["phase"], line.get("tau")) for line in finished.read_lines("history.jsonl")]
    expected = [("probe", None)] * 5
    expected += [("finetune", tau) for tau in (0, 2, 5) for _ in range(3)]
    assert phases == expected


def test_a_finished_run_is_not_redone(finished, small, monkeypatch):
    monkeypatch.setattr("molhpft.run.run.probe", lambda *a, **k: pytest.fail("redone"))
    again = run(small(features=True), finished.path.parent)
    assert again == finished


def test_a_run_of_a_table_that_has_moved_is_not_redone(
    finished, small, table, tmp_path, monkeypatch
):
    monkeypatch.setattr("molhpft.run.run.probe", lambda *a, **k: pytest.fail("redone"))
    moved = tmp_path / table.name
    moved.write_text(table.read_text())
    config = small(features=True)
    task = Choice("csv", config.task.options | {"path": moved})
    assert run(replace(config, task=task), finished.path.parent) == finished


def test_a_run_of_few_shots_trains_on_them_and_is_scored_on_all(small, tmp_path):
    def sizes(**few):
        task = {**SMALL["task"], **few}
        return run(small(task=task), tmp_path).read_json("summary.json")

    whole, few = sizes(), sizes(shots=4)
    assert few["sizes"] == {**whole["sizes"], "train": 8}
    assert few["fingerprint"] != whole["fingerprint"]
    assert few["branches"][0]["final"]["test"] is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cut": "conv9"}, "conv9"),
        ({"encoder": {**SMALL["encoder"], "weights": __file__}}, "weight"),
    ],
)
def test_what_cannot_be_built_leaves_no_folder(small, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(small(**changes), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".partial"]


def test_a_task_without_a_fingerprint_leaves_no_folder(small, tmp_path):
    config = small()
    with pytest.raises(ValueError, match="has no fingerprint"):
        run(config, tmp_path, task=replace(task_of(config), fingerprint=""))
    assert not list(tmp_path.iterdir())


def test_every_process_has_read_the_branches_before_the_folder_is_closed(
    small, tmp_path, monkeypatch
):
    """What closing the folder removes, another process may still be reading."""
    order, load, close = [], running.load_branch, RunFolder.close
    monkeypatch.setattr(Machine, "wait", lambda self: order.append("wait"))
    monkeypatch.setattr(running, "load_branch", lambda *a: order.append("load") or load(*a))
    monkeypatch.setattr(RunFolder, "close", lambda self: order.append("close") or close(self))
    run(small(method={"name": "lp"}, probe={"epochs": 1, "lr": 0.01}), tmp_path)
    first, last = order.index("load"), order.index("close")
    assert "wait" in order[:first]
    assert "wait" in order[first:last]
    assert "wait" in order[last:]


def test_a_task_that_is_given_is_the_one_that_is_run(finished, small, tmp_path):
    config = small()
    whole = task_of(config)
    blind = replace(
        whole, splits={s: whole.rows(s) for s in ("train", "valid")}, fingerprint="blind"
    )
    for given, row in zip(
        rows_of(run(config, tmp_path, task=blind)), rows_of(finished), strict=True
    ):
        assert given["final"] == {s: row["final"][s] for s in ("train", "valid")}


def test_a_run_that_fails_before_it_has_kept_anything_leaves_no_folder(
    small, tmp_path, monkeypatch
):
    def refused(*_, **__):
        (folder,) = tmp_path.glob("*.partial")
        assert [path.name for path in folder.iterdir()] == ["config.yaml"]
        raise ValueError("no such head")

    monkeypatch.setattr(running, "probe_heads", refused)
    with pytest.raises(ValueError, match="no such head"):
        run(small(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("saves", [1, 4, 9])
def test_an_interrupted_run_resumes_exactly(finished, small, tmp_path, saves):
    with killed_at_save(saves):
        run(small(features=True), tmp_path)
    assert [p.suffix for p in tmp_path.iterdir()] == [".partial"]
    resumed = run(small(features=True), tmp_path)
    for name in ("summary.json", "history.jsonl", "model.safetensors"):
        assert (resumed.path / name).read_bytes() == (finished.path / name).read_bytes(), name
    assert [p.name for p in tmp_path.iterdir()] == [finished.path.name]


@pytest.mark.parametrize("saves", [1, 3])
def test_an_interrupted_pretraining_on_shares_of_sources_resumes_exactly(small, tmp_path, saves):
    names = tmp_path / "chains.smi"
    names.write_text("\n".join(f"{'C' * k}{end}" for k in range(1, 30) for end in ("O", "N")))
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("smiles,even\n" + "".join(f"C1{'C' * k}1,{k % 2}\n" for k in range(1, 30)))
    task = {
        "name": "pretraining",
        "of": [str(names), str(labelled)],
        "targets": ["assays", "descriptors", "morgan"],
        "share": [0.5, 2.0],
        "split": "random",
    }
    raw = resolved(small(method="scratch", finetune={"epochs": 3, "keep": "last"}))
    config = parse_config({**raw, "task": task})
    whole = run(config, tmp_path / "whole")
    with killed_at_save(saves):
        run(config, tmp_path / "killed")
    resumed = run(config, tmp_path / "killed")
    for name in ("summary.json", "history.jsonl", "model.safetensors"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes(), name


@pytest.mark.slow
def test_kernels_change_step_by_step_also_over_an_interruption(small, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "PROBE_EXAMPLES", 4)  # 50 take a minute
    config = small(method={"name": "ft"}, measures=["ntk"])
    whole = run(config, tmp_path / "whole").read_lines("history.jsonl")
    start, step = ([row[key] for row in whole] for key in ("ntk_change", "ntk_step"))
    assert step[0] == start[0] > 0
    assert step[1:] != start[1:]
    with killed_at_save(2):
        run(config, tmp_path / "killed")
    assert run(config, tmp_path / "killed").read_lines("history.jsonl") == whole


def test_tau_zero_is_plain_finetuning_of_the_network_as_it_is_built(finished, small):
    config = small(method={"name": "ft"})
    task, network, zero = task_of(config), network_of(config), rows_of(finished)[0]
    untouched = scores(predictions(network, task), task)
    assert zero["probe"] == pytest.approx(untouched)
    # no probe, no run: the finetuning phase alone
    rng = torch.Generator().manual_seed(seed_for(config.seed, "finetune"))
    phase, machine = build_recipes(config)[0].after[0], launch(settled(config))
    fit(network, phase, task, rng=rng, machine=machine)
    tuned = scores(predictions(network, task), task)
    assert zero["final"] == pytest.approx(tuned)


def test_a_tau_has_the_same_result_in_any_list(finished, small, tmp_path):
    (alone,) = rows_of(run(small(method={"name": "hp_ft", "tau": [2]}), tmp_path))
    assert alone == rows_of(finished)[1]


def test_another_seed_gives_another_run(finished, small, tmp_path):
    other = run(small(seed=1, method={"name": "ft"}), tmp_path)
    assert rows_of(other)[0] != rows_of(finished)[0]


def test_a_regression_learns_the_same_in_any_unit(table, small, tmp_path):
    rescaled = tmp_path / table.name
    header, *lines = table.read_text().splitlines()
    rows = [line.rpartition(",") for line in lines]
    text = [header, *(f"{first},{1000 * float(size) + 4096}" for first, _, size in rows)]
    rescaled.write_text("\n".join(text) + "\n")
    branches = []
    for path in (table, rescaled):
        config = small(method={"name": "ft"})
        task = csv_task(path=path, target_columns=["size"], split="random", split_seed=1)
        summary = run(config, tmp_path, task=task).read_json("summary.json")
        assert summary["metric"] == "neg_rmse"
        branches += summary["branches"]
    own, other = branches
    assert own["energy"]["balanced"] is None
    assert own["final"]["test"] < 0
    assert other["energy"]["aie"] == pytest.approx(own["energy"]["aie"], rel=1e-4)
    assert other["final"]["valid"] == pytest.approx(1000 * own["final"]["valid"], rel=1e-2)


PIECES = {"finetune": {**SMALL["finetune"], "epochs": 5}, "members": True}
ONE_TAU = {**PIECES, "method": {"name": "hp_ft", "tau": [2]}}
AUTO_TAU = {
    **PIECES,
    "method": {"name": "hp_ft", "tau": "auto"},
    "probe": {"lr": 0.01, "epochs": 40},
}


@pytest.fixture
def trained_epochs(monkeypatch):
    """Numbers of the epochs of finetuning that are trained while the test goes on."""
    epochs, save = [], SavedPhase.save
    monkeypatch.setattr(resume, "_APART", 0.0)
    monkeypatch.setattr(SavedPhase, "save", lambda *a: epochs.append(len(a[1].rows)) or save(*a))
    return epochs


@pytest.mark.parametrize(
    "changes",
    [
        ONE_TAU,
        {**ONE_TAU, "head": "mlp", "views": "live"},
        {
            **ONE_TAU,
            "finetune": {**PIECES["finetune"], "schedule": "cosine", "keep": "last"},
            "measures": ["drift"],
        },
        AUTO_TAU,
    ],
    ids=["best", "mlp, live", "cosine, last, measured", "auto"],
)
def test_a_run_in_pieces_is_the_whole_run(small, tmp_path, changes):
    config = small(**changes)
    whole = run(config, tmp_path / "whole")
    for until in (1, 4):
        paused = run(config, tmp_path / "pieces", task=task_of(config), until=until)
        assert not paused.is_complete
        assert not paused.path.exists()
    assert files_of(run(config, tmp_path / "pieces")) == files_of(whole)
    assert [path.name for path in (tmp_path / "pieces").iterdir()] == [whole.path.name]


def test_each_piece_trains_its_epochs_alone(small, tmp_path, trained_epochs):
    config = small(**ONE_TAU)
    run(config, tmp_path, task=task_of(config), until=2)
    assert trained_epochs == [1, 2]
    run(config, tmp_path)
    assert trained_epochs == [1, 2, 3, 4, 5]


def test_a_piece_goes_on_from_the_tau_that_is_chosen(small, tmp_path, trained_epochs):
    config = small(**AUTO_TAU)
    run(config, tmp_path, task=task_of(config), until=4)
    choice = run(config, tmp_path).read_json("choice.json")
    assert len(trained_epochs) == choice["spent"] > 5


def test_a_piece_that_comes_after_a_later_one_changes_nothing(small, tmp_path, trained_epochs):
    config = small(**ONE_TAU)
    task = task_of(config)
    paused = run(config, tmp_path, task=task, until=3)
    before = {path: path.stat().st_mtime_ns for path in paused.partial.rglob("phase*")}
    run(config, tmp_path, task=task, until=2)
    assert before == {path: path.stat().st_mtime_ns for path in paused.partial.rglob("phase*")}
    finished = run(config, tmp_path)
    files = files_of(finished)
    assert run(config, tmp_path, task=task, until=2) == finished
    assert files_of(finished) == files
    assert [path.name for path in tmp_path.iterdir()] == [finished.path.name]
    assert trained_epochs == [1, 2, 3, 4, 5]


def test_a_piece_of_a_finetuning_that_has_ended_trains_nothing(
    small, tmp_path, trained_epochs, monkeypatch
):
    """As where a run was killed before its results were written."""
    config = small(**ONE_TAU)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "close", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config, tmp_path)
    run(config, tmp_path, task=task_of(config), until=2)
    assert trained_epochs == [1, 2, 3, 4, 5]
    assert run(config, tmp_path).is_complete


@pytest.mark.parametrize("saves", [1, 2])
def test_an_interrupted_piece_is_gone_on_with(small, tmp_path, saves):
    config = small(**ONE_TAU)
    whole = run(config, tmp_path / "whole")
    with killed_at_save(saves):
        run(config, tmp_path / "killed", task=task_of(config), until=3)
    run(config, tmp_path / "killed", task=task_of(config), until=3)
    assert files_of(run(config, tmp_path / "killed")) == files_of(whole)
