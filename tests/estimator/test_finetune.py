"""A table becomes a model in a folder once, whatever comes in between."""

import os
from pathlib import Path

import pytest

from molhpft.domains.files import UnwritableError
from molhpft.estimator import finetune as finetuning
from molhpft.estimator import train
from molhpft.estimator.finetune import finetune_table
from molhpft.estimator.model import Model
from molhpft.estimator.settings import Inference
from molhpft.run import run as branch
from molhpft.run.folder import RunFolder
from tests.estimator.builders import BRIEF, SEVERAL, SIZE, SMILES, write_table
from tests.kills import KilledError, killed_at_save

FILES = ("README.md", "config.json", "held_out.csv", "model.safetensors")


CHANGES = (f"encoder={BRIEF['encoder']}", *(f"{key}={value}" for key, value in SEVERAL.items()))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("data") / "rings.csv", target="size", values=SIZE)


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory):
    return finetune(table, tmp_path_factory.mktemp("models") / "rings")


def finetune(path, out, *, split="random", **options):
    table = {"path": str(path), "split": split}
    given = {"tau": (0, 2), "head": "linear", "seed": 6, "changes": CHANGES}
    given["inference"] = Inference(members="networks")
    return finetune_table(table, out, **given | options)


def files_of(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def tree_of(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_folder_holds_the_model_and_the_run_that_made_it(finished, table):
    assert finished.is_new
    assert len(finished.model.networks) > 1
    assert {path.name for path in finished.folder.iterdir()} == {*FILES, "run"}
    (run,) = (finished.folder / "run").iterdir()
    assert (run / "summary.json").is_file()
    assert not (run / "members").exists()
    assert not list(finished.folder.parent.glob("*.partial"))
    again = Model.from_pretrained(finished.folder)
    ours, theirs = (vars(model.predict(SMILES)) for model in (finished.model, again))
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert finished.model.about["sizes"] == {
        "train": 38,
        "valid": 6,
        "test": 6,
        "calibration": 10,
    }


def test_the_same_again_finds_the_model_and_trains_nothing(finished, table, monkeypatch):
    monkeypatch.setattr(finetuning, "train", lambda *_, **__: pytest.fail("trained"))
    before = tree_of(finished.folder)
    again = finetune(table, finished.folder)
    assert not again.is_new
    assert again.model.about == finished.model.about
    assert tree_of(finished.folder) == before


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"tau": (0, 3)},
        {"head": "mlp"},
        {"changes": (*CHANGES, "finetune.epochs=9")},
        {"changes": (*CHANGES, "cut=conv1")},
        {"inference": Inference(target_coverage=0.8)},
        {"inference": Inference(calibration="isotonic")},
        {"inference": Inference(members="fingerprints")},
        {"folds": 2},
    ],
    ids=str,
)
def test_other_settings_into_the_same_folder_are_refused_and_nothing_is_lost(
    finished, table, options
):
    before = tree_of(finished.folder)
    with pytest.raises(ValueError, match="holds a model of other data or settings"):
        finetune(table, finished.folder, **options)
    assert tree_of(finished.folder) == before


def test_other_data_into_the_same_folder_are_refused(finished, tmp_path):
    changed = write_table(tmp_path / "rings.csv", target="size", values=[SIZE[0] + 1, *SIZE[1:]])
    with pytest.raises(ValueError, match="holds a model of other data or settings"):
        finetune(changed, finished.folder)


def test_other_lines_for_the_same_molecules_are_other_data(finished, table, tmp_path):
    """The folder's files say in which line a molecule is."""
    head, *lines = table.read_text().splitlines(keepends=True)
    moved = tmp_path / table.name
    moved.write_text("".join([head, lines[0], "\n\n", *lines[1:]]))
    with pytest.raises(ValueError, match="holds a model of other data or settings"):
        finetune(moved, finished.folder)


@pytest.mark.parametrize("saves", [1, 3, 5, 8])
def test_an_interrupted_finetuning_goes_on_to_the_same_bytes(finished, table, tmp_path, saves):
    with killed_at_save(saves):
        finetune(table, tmp_path / "rings")
    assert [path.name for path in tmp_path.iterdir()] == ["rings.partial"]
    finetune(table, tmp_path / "rings")
    assert files_of(tmp_path / "rings") == files_of(finished.folder)


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (train, "fit_uncertainty"),
        (Model, "save_pretrained"),
        (os, "replace"),
        (RunFolder, "drop"),
    ],
    ids=["before it is made", "before it is written", "when it is written", "at the end"],
)
def test_an_interruption_after_the_training_changes_nothing(
    finished, table, tmp_path, monkeypatch, where, name
):
    real = getattr(where, name)

    def die(*args, **options):
        done = real(*args, **options) if name in ("replace", "drop") else None
        if name != "replace" or str(args[1]) == str(tmp_path / "rings"):
            raise KilledError
        return done

    with monkeypatch.context() as patch:
        patch.setattr(where, name, die)
        with pytest.raises(KilledError):
            finetune(table, tmp_path / "rings")
    monkeypatch.setattr(branch, "finetune", lambda *_, **__: pytest.fail("trained again"))
    finetune(table, tmp_path / "rings")
    assert files_of(tmp_path / "rings") == files_of(finished.folder)


def test_settings_that_are_refused_leave_no_folder_behind(table, tmp_path):
    with pytest.raises(ValueError, match="head aspp reads feature maps"):
        finetune(table, tmp_path / "rings", head="aspp")
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_leaves_what_an_interrupted_finetuning_has_kept(table, tmp_path):
    with killed_at_save(3):
        finetune(table, tmp_path / "rings")
    before = tree_of(tmp_path)
    with pytest.raises(ValueError, match="head aspp reads feature maps"):
        finetune(table, tmp_path / "rings", head="aspp")
    assert tree_of(tmp_path) == before


def test_a_split_beside_a_column_of_times_says_which_options_those_are(tmp_path):
    table = {"path": str(write_table(tmp_path / "a.csv")), "split": "random", "time_column": "y"}
    says = r"column of times says .* 'random' says otherwise; .* \(--time or task.time_column\)"
    with pytest.raises(ValueError, match=says):
        finetune_table(table, tmp_path / "model")


def test_what_was_begun_with_other_settings_does_no_harm(finished, table, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Model, "save_pretrained", lambda *_, **__: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            finetune(table, tmp_path / "rings", seed=1)
    finetune(table, tmp_path / "rings")
    assert files_of(tmp_path / "rings") == files_of(finished.folder)
    ours, theirs = (tmp_path / "rings" / "run", finished.folder / "run")
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}


@pytest.mark.parametrize("is_there", [True, False])
def test_the_end_of_a_link_becomes_the_model(table, tmp_path, is_there):
    link, end = tmp_path / "link", tmp_path / "disk" / "rings"
    end.parent.mkdir()
    if is_there:
        end.mkdir()
    link.symlink_to(end)
    given = {"tau": None, "head": None, "changes": (), "inference": Inference("fingerprints")}
    made = finetune(table, link, **given)
    assert link.is_symlink()
    assert Model.from_pretrained(link).about == made.model.about
    assert not list(tmp_path.rglob("*.partial"))
    assert not finetune(table, link, **given).is_new


def test_the_folder_one_is_in_does_not_become_the_model(table, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match=r"is the folder that this command works in, .* \(--out\)"):
        finetune(table, Path())


def test_a_held_out_part_is_drawn_by_the_seed_unless_it_has_one_of_its_own(table, tmp_path):
    given = {"folds": 0, "inference": Inference("fingerprints")}

    def learned(seed, **options):
        options = {"path": str(table), "split": "random", **options}
        out = tmp_path / f"{seed} {options.get('split_seed')}"
        return finetune_table(options, out, seed=seed, **given).model.training_smiles

    assert learned(1) != learned(2)
    assert learned(3, split_seed=1) == learned(1)
    assert learned(0) == learned(None)


@pytest.mark.parametrize("changes", [("device=cpu", "devices=2"), ("device=cpu", "nodes=2")])
def test_several_processes_of_one_run_are_refused(table, tmp_path, changes):
    with pytest.raises(ValueError, match=r"made by one process, .* leave devices and nodes out"):
        finetune(table, tmp_path / "rings", changes=(*CHANGES, *changes))


def test_an_empty_folder_becomes_the_model(table, tmp_path):
    out = tmp_path / "rings"
    out.mkdir()
    given = {"tau": None, "head": None, "changes": (), "inference": Inference("fingerprints")}
    assert finetune(table, out, **given).is_new
    assert sorted(path.name for path in out.iterdir()) == list(FILES)
    assert not list(tmp_path.glob("*.partial"))


def test_a_folder_of_something_else_is_left_alone_and_refused_before_the_table_is_read(tmp_path):
    out = tmp_path / "rings"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    before = tree_of(tmp_path)
    with pytest.raises(ValueError, match="is there and is no model; choose another folder"):
        finetune(tmp_path / "absent.csv", out)
    assert tree_of(tmp_path) == before


def test_a_place_that_cannot_be_written_is_one_sentence(table, tmp_path):
    (tmp_path / "rings.partial").write_text("a file")
    with pytest.raises(UnwritableError, match="cannot write") as caught:
        finetune(table, tmp_path / "rings")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "rings.partial").read_text() == "a file"


@pytest.mark.parametrize("level", [0.0, 1.0, -1, 2, float("nan")])
def test_a_target_coverage_that_means_nothing_is_refused_before_training(level):
    with pytest.raises(ValueError, match="target coverage should lie between 0 and 1"):
        Inference(target_coverage=level)


def test_a_calibration_that_nobody_knows_is_refused_before_training():
    with pytest.raises(ValueError, match=r"should be one of auto, platt, .*, none, got 'best'"):
        Inference(calibration="best")


def test_a_damaged_model_in_the_place_is_not_taken_for_the_one_asked_for(finished, table, tmp_path):
    out = tmp_path / "rings"
    out.mkdir()
    for name, content in files_of(finished.folder).items():
        (out / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        finetune(table, out)


@pytest.mark.parametrize("folds", [2, 0])
def test_few_labels_are_what_a_model_is_made_of(table, tmp_path, folds):
    inference = Inference(members="fingerprints")
    options = {"path": str(table), "split": "random"}
    made = finetune_table(
        options, tmp_path / "few", folds=folds, changes=["task.train_size=10"], inference=inference
    )
    assert made.model.about["sizes"]["train"] == len(made.model.training_smiles) == 10
    with pytest.raises(ValueError, match="train_size is 900, and task"):
        finetune_table(options, tmp_path / "many", folds=folds, changes=["task.train_size=900"])


def test_a_model_of_folds_of_another_seed_is_not_taken_for_the_one_asked_for(table, tmp_path):
    given = {"changes": CHANGES, "inference": Inference(members="fingerprints"), "folds": 2}
    for is_new in (True, False):
        options = {"path": str(table), "split_seed": 0}
        assert finetune_table(options, tmp_path / "model", **given).is_new is is_new
    with pytest.raises(ValueError, match="holds a model of other data or settings"):
        finetune_table({**options, "split_seed": 1}, tmp_path / "model", **given)


@pytest.mark.parametrize(
    ("option", "first", "second"),
    [
        ("group_column", [k % 3 for k in range(60)], range(60)),
        # rows in the same order, of which fewer are held out first
        ("time_column", range(60), [*range(26), *[32] * 7, *range(33, 60)]),
    ],
)
def test_a_model_of_folds_by_another_column_is_not_taken_for_it(tmp_path, option, first, second):
    """Though path, options, molecules and labels are the same."""
    table = {"path": str(tmp_path / "sizes.csv"), "target_columns": ("size",), option: "column"}
    given = {"changes": CHANGES, "inference": Inference(members="fingerprints"), "folds": 2}

    def made(column):
        rows = [f"{s},{y},{c}" for s, y, c in zip(SMILES, SIZE, column, strict=True)]
        Path(table["path"]).write_text("\n".join(["smiles,size,column", *rows]) + "\n")
        return finetune_table(table, tmp_path / "model", **given)

    assert made(first).is_new
    assert not made(first).is_new
    with pytest.raises(ValueError, match="holds a model of other data or settings"):
        made(second)
