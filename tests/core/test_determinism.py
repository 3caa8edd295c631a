import pytest
import torch

from molhpft.core.determinism import (
    deterministic_on_gpus,
    half_the_threads,
    one_thread,
    seed_dropout,
    seed_for,
    threads,
)


def test_threads_come_back_even_after_an_error():
    with threads(2):
        with pytest.raises(KeyError, match=r"^1"), one_thread():
            raise KeyError(torch.get_num_threads())
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1


def test_half_of_the_threads_is_at_least_one():
    with threads(5), half_the_threads():
        assert torch.get_num_threads() == 2
        with half_the_threads(), half_the_threads():
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_adds_in_the_same_order_every_time():
    x, row = torch.randn(200_000, 8, device="cuda"), torch.randint(20, (200_000,), device="cuda")
    with deterministic_on_gpus():
        first, *others = (x.new_zeros(20, 8).index_add(0, row, x) for _ in range(5))
    assert all(torch.equal(first, other) for other in others)


def test_how_a_gpu_adds_is_restored_even_after_an_error(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(KeyError, match=r"^1"), deterministic_on_gpus():
        raise KeyError(torch.get_deterministic_debug_mode())
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
