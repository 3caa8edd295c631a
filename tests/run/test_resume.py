"""What a run folder keeps of a phase under way."""

from dataclasses import fields

import torch

from molhpft.run.folder import RunFolder, load_phase, save_phase
from molhpft.tuning.fit import Checkpoints, fit
from molhpft.tuning.phase import Phase
from tests.toy import toy_network, toy_task

PHASE = Phase(trains="all", epochs=3, lr=0.01, batch_size=8, anchor=0.5, keep="best")


def test_a_phase_comes_back_from_its_folder_whole(tmp_path):
    folder, kept = RunFolder(tmp_path / "run"), []
    folder.open()
    rng = torch.Generator().manual_seed(0)
    fit(toy_network(), PHASE, toy_task(), rng=rng, checkpoints=Checkpoints(save=kept.append))
    save_phase(folder, "tau0-0", kept[0])
    found = load_phase(folder, "tau0-0")
    assert kept[0].best
    assert kept[0].anchor
    assert kept[0].moments
    for field in fields(found):
        torch.testing.assert_close(
            getattr(found, field.name), getattr(kept[0], field.name), rtol=0, atol=0
        )
