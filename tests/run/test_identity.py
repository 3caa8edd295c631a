"""Names of runs and trials: everything that decides a result, and nothing else."""

from dataclasses import replace

import pytest

from molhpft.config.build import build_recipes
from molhpft.config.schema import parse_config, resolved
from molhpft.domains.molecules.pretraining import joint_task
from molhpft.run.identity import probe_name, run_name, trial_name
from tests.runs import SMALL, task_of


def test_the_name_of_a_run_depends_on_content_and_not_on_place(small, table, tmp_path):
    def name(path=table, **changes):
        raw = resolved(small(**changes))
        config = parse_config({**raw, "task": {**raw["task"], "path": str(path)}})
        return run_name(config, task_of(config))

    moved, edited = tmp_path / "home" / table.name, tmp_path / "new" / table.name
    for path, text in (
        (moved, table.read_text()),
        (edited, table.read_text().replace("\nCCCO,0,", "\nCCCO,1,")),
    ):
        path.parent.mkdir()
        path.write_text(text)
    assert name() == name(moved) == name(checkpoint=1000)
    others = [name(edited), name(seed=1), name(finetune={"lr": 0.5}), name(method="lp")]
    assert len({name(), *others}) == 5


def test_weights_count_by_what_the_file_holds(small, tmp_path):
    files = [tmp_path / name for name in ("a.pth", "b.pth", "c.pth")]
    for path, content in zip(files, (b"one", b"one", b"other"), strict=True):
        path.write_bytes(content)
    encoders = [{**SMALL["encoder"], "weights": str(path)} for path in files]
    task = task_of(small())
    first, same, other = (run_name(small(encoder=encoder), task) for encoder in encoders)
    assert first == same != other


def test_a_pretraining_task_beside_it_leaves_the_data_what_they_are(small):
    config = small()
    task = task_of(config)
    joint = joint_task(task, task, weight=0.5)
    assert joint.fingerprint == task.fingerprint
    assert run_name(config, joint) != run_name(config, task)


def test_a_trial_on_a_folder_of_images_is_another_when_one_of_them_changes(tmp_path):
    raw = {"encoder": "cifar_resnet", "task": {"name": "image_folder", "path": str(tmp_path)}}
    (tmp_path / "train").mkdir()
    image = tmp_path / "train" / "a.png"
    image.write_bytes(b"one")
    before = trial_name(parse_config(raw))
    assert trial_name(parse_config(raw)) == before
    image.write_bytes(b"three")
    assert trial_name(parse_config(raw)) != before


def test_a_trial_on_several_sources_knows_each_by_its_name_or_by_what_it_holds(tmp_path):
    path = tmp_path / "list.smi"
    path.write_text("C")

    def name(*of):
        task = {"name": "pretraining", "of": [str(one) for one in of]}
        return trial_name(parse_config({"encoder": "gcn", "task": task}))

    before = [name("ogbg-molhiv", path), name("ogbg-molmuv", path), name(path)]
    moved = tmp_path / "moved.smi"
    moved.write_text("C")
    assert name("ogbg-molhiv", moved) == before[0]
    path.write_text("CC")
    assert len({*before, name("ogbg-molhiv", path), name(path)}) == 5


def test_a_trial_knows_the_files_of_the_pretraining_it_serves_by_what_they_hold(small, tmp_path):
    path, moved = tmp_path / "pre.csv", tmp_path / "moved.csv"
    rows = "smiles,large\n" + "".join(f"{'C' * n}O,1\n" for n in range(1, 9))
    path.write_text(rows)
    moved.write_text(rows)

    def served(of):
        given = {"name": "pretraining", "of": of, "targets": ["assays"], "split": "random"}
        return small(method={"name": "flyp", "pretraining": given})

    before = trial_name(served([str(path)]))
    assert trial_name(served(str(path))) == trial_name(served([str(moved)])) == before
    task = joint_task(task_of(small()), task_of(small()), weight=1.0)
    assert run_name(served([str(path)]), task) == run_name(served([str(moved)]), task)
    path.write_text(rows.replace(",1", ",0"))
    assert trial_name(served([str(path)])) != before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nci_descriptor", r"unknown method\.pretraining nci_descriptor; did you mean nci_desc"),
        ({"name": "pretraining", "targets": "assays"}, r"missing key method\.pretraining\.of"),
    ],
)
def test_a_pretraining_that_no_trial_can_serve_is_refused_with_its_key(small, given, words):
    with pytest.raises(ValueError, match=words):
        trial_name(small(method={"name": "flyp", "pretraining": given}))


def test_a_task_without_a_fingerprint_is_refused_for_its_results_have_no_name(small):
    task = replace(task_of(small()), fingerprint="")
    with pytest.raises(ValueError, match="task rings has no fingerprint, which tells its results"):
        run_name(small(), task)


@pytest.mark.parametrize("precision", ["auto", "bf16-mixed"])
def test_a_probe_is_the_same_at_every_precision_of_finetuning(small, precision):
    config = small(method="lp_ft", precision=32)
    task, (recipe,) = task_of(config), build_recipes(config)
    other = replace(config, precision=precision)
    assert probe_name(other, recipe, task) == probe_name(config, recipe, task)
    assert run_name(other, task) != run_name(config, task)
