import pytest
import torch

from molhpft.core.determinism import one_thread


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@one_thread()
def failing_on_one_thread():
    raise KeyError(torch.get_num_threads())


@pytest.mark.usefixtures("two_threads")
def test_one_thread_gives_the_others_back_even_after_an_error():
    with pytest.raises(KeyError, match=r"^1"):
        failing_on_one_thread()
    assert torch.get_num_threads() == 2
