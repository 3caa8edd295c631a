import pytest
import torch

from molhpft.core.determinism import one_thread, seed_dropout, seed_for, threads


def test_threads_come_back_even_after_an_error():
    with threads(2):
        with pytest.raises(KeyError, match=r"^1"), one_thread():
            raise KeyError(torch.get_num_threads())
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1


def test_every_seed_and_purpose_has_a_seed_of_its_own_and_always_the_same():
    seeds = {seed_for(seed, purpose) for seed in range(20) for purpose in ("a", "b", "c")}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert seed_for(0, "finetune") == 2377622197589930558


def test_dropout_drops_what_its_seed_says():
    masks = []
    for seed in (3, 3, 4):
        seed_dropout(seed, torch.device("cpu"))
        masks.append(torch.nn.functional.dropout(torch.ones(99)))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
