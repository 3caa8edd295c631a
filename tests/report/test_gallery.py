"""The gallery: the molecules that numbers single out, or a sentence on what is missing."""

import shutil

import numpy as np
import pytest
import torch

from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.schema import parse_config
from molhpft.domains.weights import read_weights
from molhpft.report.figures import task_variants
from molhpft.report.page import galleries
from molhpft.results.read import read_runs
from molhpft.run.run import snapshots
from molhpft.run.standouts import SHOWN


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


def test_molecules_are_shown_without_data_and_weights(copied):
    before = shown(copied)
    for name in ("config.yaml", "summary.json"):
        text = (copied / name).read_text()
        (copied / name).write_text(text.replace("rings.csv", "gone.csv"))
    for name in ("features.npz", "model.safetensors"):
        (copied / name).unlink()
    assert shown(copied) == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "its task has no molecules"),
        (lambda path: path.write_text("{"), "molecules.json is damaged"),
    ],
    ids=["absent", "damaged"],
)
def test_what_is_missing_is_a_sentence(copied, damage, words):
    damage(copied / "molecules.json")
    for gallery in shown(copied):
        assert gallery.pictures == ()
        assert gallery.note.startswith("No molecules to show: ")
        assert words in gallery.note


def test_the_best_variant_with_features_is_shown(results):
    first, _ = galleries(task_variants(results, results.table))
    assert first.note.startswith("Training molecules of hp-ft, seed ")
