"""The types and shapes that annotations promise are checked while tests run."""

import pytest
import torch

from molhpft.core.annotations import contains
from molhpft.core.metrics import rank_correlation, root_mean_squared_error
from molhpft.tuning.distributed import Machine
from molhpft.tuning.phase import Phase

ROWS = torch.rand(6, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: root_mean_squared_error(ROWS, torch.rand(1, 2)),
        lambda: root_mean_squared_error(ROWS, torch.rand(6, 1)),
        lambda: root_mean_squared_error(ROWS, ROWS[0]),
        lambda: rank_correlation(ROWS.long(), ROWS),
        lambda: contains(3, 2),
        lambda: Phase(trains="head", epochs="3", lr=0.1),
        lambda: Machine().whole(ROWS, 7),
    ],
)
def test_what_an_annotation_does_not_allow_is_refused(call):
    with pytest.raises(Exception, match=r"hint|Type-check"):
        call()


def test_a_letter_may_have_another_size_in_another_call():
    for rows in (ROWS, torch.rand(4, 3)):
        assert root_mean_squared_error(rows, rows) == 0
        assert torch.equal(Machine().whole(rows, len(rows)), rows)
