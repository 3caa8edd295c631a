"""The gallery: the molecules that numbers single out, or a sentence on what is missing."""

import shutil

import numpy as np
import pytest
import torch

from molhpft.domains.weights import read_weights
from molhpft.experiments.archive import read_runs
from molhpft.experiments.branch import snapshots
from molhpft.experiments.build import build_network, build_recipes, build_task
from molhpft.experiments.config import parse_config
from molhpft.experiments.report.gallery import SHOWN, galleries
from molhpft.experiments.report.measured import variants


@pytest.fixture
def copied(tree, tmp_path):
    """The first run with features, alone, for a test to damage."""
    source = next(p for p in sorted(tree.iterdir()) if (p / "features.npz").is_file())
    shutil.copytree(source, tmp_path / source.name)
    return tmp_path / source.name


def shown(path):
    runs, _ = read_runs(path.parent)
    return galleries([("hp-ft", runs)])


def reference(path):
    """Distance and energy of every training molecule, by running the saved network anew."""
    (run,), _ = read_runs(path.parent)
    config = parse_config(run.config)
    recipe = build_recipes(config)[0]
    task = build_task(config, recipe)
    network = build_network(config, task, recipe)
    network.load_state_dict(read_weights(path / "model.safetensors").tensors)
    after = snapshots(network, task)["train"]
    with np.load(path / "features.npz") as arrays:
        before = torch.from_numpy(arrays["train_before"])
    smiles = [task.examples.smiles[row] for row in task.rows("train").tolist()]
    moved = (after.features - before).norm(dim=1)
    energy = task.objective.residual(after.logits, after.targets).norm(dim=1)
    return smiles, moved, energy


def test_molecules_are_those_that_moved_most_and_kept_most_energy(copied):
    smiles, moved, energy = reference(copied)
    for gallery, values in zip(shown(copied), (moved, energy), strict=True):
        assert len(gallery.pictures) == SHOWN
        assert all(picture.svg.startswith("<svg") for picture in gallery.pictures)
        own = [values[smiles.index(picture.smiles)].item() for picture in gallery.pictures]
        top = values.sort(descending=True).values[:SHOWN].tolist()
        assert own == pytest.approx(top, rel=1e-4)


def test_captions_tell_the_numbers_and_the_worst_target(copied):
    smiles, moved, energy = reference(copied)
    for picture in shown(copied)[1].pictures:
        row = smiles.index(picture.smiles)
        assert picture.lines[0] == f"moved {moved[row]:.2f}, energy {energy[row]:.2f}"
        name, rest = picture.lines[1].rsplit(": ", 1)
        assert name in ("ring", "<b>odd|</b>")
        label, predicted = (float(word.split()[-1]) for word in rest.split(", "))
        assert abs(label - predicted) <= energy[row] + 0.006


def damage_features(path):
    (path / "features.npz").write_bytes(b"PK")


def other_rows(path):
    np.savez(path / "features.npz", train_before=np.ones((3, 8)), train_after=np.ones((3, 8)))


def other_weights(path):
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("width: 8", "width: 9"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / "features.npz").unlink(), "it kept no features"),
        (damage_features, "features.npz is damaged"),
        (other_rows, "has 3 training molecules, the task"),
        (other_weights, "model.safetensors does not fit the run's config"),
        (lambda path: (path / "model.safetensors").unlink(), "model.safetensors"),
        (lambda path: (path / "model.safetensors").write_bytes(b"x"), "model.safetensors"),
    ],
    ids=["absent", "damaged", "other data", "other network", "no model", "damaged model"],
)
def test_what_is_missing_is_a_sentence(copied, damage, words):
    damage(copied)
    for gallery in shown(copied):
        assert gallery.pictures == ()
        assert gallery.note.startswith("No molecules to show: ")
        assert words in gallery.note


def test_data_that_are_gone_are_a_sentence(copied):
    text = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(text.replace("rings.csv", "gone.csv"))
    assert "gone.csv" in shown(copied)[0].note


def test_the_weights_that_training_began_with_are_not_needed(copied):
    text = (copied / "config.yaml").read_text()
    assert "weights: null" in text
    (copied / "config.yaml").write_text(text.replace("weights: null", "weights: gone.pth"))
    assert shown(copied)[0].pictures


def test_the_best_variant_with_features_is_shown(results):
    found = variants(results, results.table)
    assert galleries(found)[0].note.startswith("Training molecules of hp-ft, seed ")
