"""What a run folder keeps of a phase under way."""

from dataclasses import fields, replace

import pytest
import torch

from molhpft.run import resume
from molhpft.run.folder import RunFolder
from molhpft.run.resume import SavedPhase, phase_key, save_branch
from molhpft.tuning.callbacks import Callback, PauseAfter
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from molhpft.tuning.recipes import Recipe
from tests.toy import Counter, Saving, toy_network, toy_task

PHASE = Phase(
    trains="all", epochs=3, lr=0.01, batch_size=8, anchor=0.5, adapter_rank=2, keep="best"
)


def test_a_phase_comes_back_from_its_folder_whole(tmp_path):
    saved, memory = SavedPhase(RunFolder(tmp_path / "run"), "tau0-0"), Saving()
    saved.folder.open()
    rng = torch.Generator().manual_seed(0)
    fit(toy_network(), PHASE, toy_task(), rng=rng, callbacks=[saved, memory, Counter()])
    expected, progress = memory.saved[-1], saved.resume()
    for group in ("best", "anchor", "adapters", "moments", "callbacks"):
        assert getattr(expected, group)
    for field in fields(progress):
        torch.testing.assert_close(
            getattr(progress, field.name), getattr(expected, field.name), rtol=0, atol=0
        )


class Clock(Callback):
    """A clock by which every epoch takes so many seconds."""

    def __init__(self, seconds):
        self.seconds, self.now = seconds, 0.0

    def measure(self, network):
        self.now += self.seconds
        return {}


@pytest.mark.parametrize(("seconds", "kept"), [(1, [8]), (4, [3, 6, 8]), (10, [*range(1, 9)])])
def test_epochs_are_saved_ten_seconds_apart_and_a_pause_always(
    tmp_path, monkeypatch, seconds, kept
):
    clock, epochs, save = Clock(seconds), [], SavedPhase.save
    monkeypatch.setattr(resume, "monotonic", lambda: clock.now)
    monkeypatch.setattr(SavedPhase, "save", lambda *a: epochs.append(len(a[1].rows)) or save(*a))
    saved = SavedPhase(RunFolder(tmp_path / "run"), "tau0-0")
    saved.folder.open()
    callbacks = [saved, clock, PauseAfter(8)]
    phase, rng = replace(PHASE, epochs=20), torch.Generator().manual_seed(0)
    fit(toy_network(), phase, toy_task(), rng=rng, callbacks=callbacks)
    assert epochs == kept


def test_a_finished_branch_leaves_the_phases_of_other_branches_alone(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open()
    probe = Phase(trains="head", epochs=4, lr=0.01)
    again = Recipe(probe=probe, after=(PHASE, PHASE), repeat=1)
    smoothed = replace(again, probe=replace(probe, smoothing=0.1), repeat=0)
    recipes = [replace(again, repeat=0), again, smoothed]
    of = {
        recipe.key: [SavedPhase(folder, phase_key(recipe, number)) for number in (0, 1)]
        for recipe in recipes
    }
    saving = Saving()
    fit(toy_network(), PHASE, toy_task(), rng=torch.Generator(), callbacks=[saving])
    for saved in (saved for some in of.values() for saved in some):
        saved.save(saving.saved[-1])
    left = list(of)
    for recipe in recipes:
        save_branch(folder, recipe, {"weight": torch.zeros(1)}, {}, [])
        left.remove(recipe.key)
        kept = [key for key, some in of.items() if all(one.resume() for one in some)]
        gone = [key for key, some in of.items() if not any(one.resume() for one in some)]
        assert (kept, sorted(gone + kept)) == (left, sorted(of))


def test_nothing_is_resumed_where_nothing_was_saved(tmp_path):
    assert SavedPhase(RunFolder(tmp_path / "run"), "tau0-0").resume() is None
