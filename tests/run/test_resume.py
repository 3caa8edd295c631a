"""What a run folder keeps of a phase under way."""

from dataclasses import fields

import torch

from molhpft.run.folder import RunFolder
from molhpft.run.resume import SavedPhase
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
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


def test_nothing_is_resumed_where_nothing_was_saved(tmp_path):
    assert SavedPhase(RunFolder(tmp_path / "run"), "tau0-0").resume() is None
