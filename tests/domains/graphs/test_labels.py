import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.domains.graphs.tasks import labels

NAN = float("nan")
numbers = st.floats(-1e6, 1e6, width=32) | st.just(NAN)
tables = st.integers(1, 4).flatmap(
    lambda t: st.lists(st.lists(numbers, min_size=t, max_size=t), min_size=1, max_size=6)
)


def found(ys, objective=None, **options):
    graphs = [Data(y=y) for y in ys]
    return labels(graphs, objective or Squared(), **{"name": "mine", "classes": None, **options})


@settings(max_examples=30, deadline=None)
@given(tables)
def test_numbers_become_a_row_a_graph_and_nan_stays(rows):
    ys = [torch.tensor([row]) for row in rows]
    torch.testing.assert_close(found(ys), torch.tensor(rows), equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("y", [torch.tensor([[1.0]]), torch.tensor([1]), torch.tensor(1.0), 1.0, 1])
def test_a_lone_number_is_one_target_however_it_is_written(y):
    assert found([y, y], Multilabel()).tolist() == [[1], [1]]


@pytest.mark.parametrize("y", [torch.tensor([2]), torch.tensor(2), torch.tensor([[2]]), 2])
def test_a_class_id_is_an_integer_however_it_is_written(y):
    ids = found([y, y, -100], Multiclass(), classes=3)
    assert ids.tolist() == [2, 2, -100]
    assert ids.dtype == torch.int64


@pytest.mark.parametrize(
    ("ys", "options", "message"),
    [
        (
            [torch.ones(1, 2), torch.ones(1, 3)],
            {},
            "as many numbers as that of graph 0, 2; that of graph 1 has 3",
        ),
        (
            [torch.ones(1), torch.tensor([2.0])],
            {"objective": Multilabel()},
            "0, 1 or NaN; graph 1 has 2",
        ),
        ([1.0, float("inf")], {}, "targets of mine should be finite numbers.*graph 1 has inf"),
        ([1.0], {"classes": 3}, "classes is for Multiclass only; got 3"),
        ([1], {"objective": Multiclass()}, "needs classes, the number of them; it is None"),
        (
            [torch.tensor([1.0])],
            {"objective": Multiclass(), "classes": 3},
            "one class id, an integer; that of graph 0 has 1 of torch.float32",
        ),
        (
            [torch.arange(5)],
            {"objective": Multiclass(), "classes": 9},
            "graph 0 has 5 of torch.int64",
        ),
        ([0, 1, 3], {"objective": Multiclass(), "classes": 3}, "0 to 2, or -100; graph 2 has 3"),
        ([0, -1], {"objective": Multiclass(), "classes": 3}, "graph 1 has -1"),
    ],
)
def test_a_label_that_the_objective_does_not_take_is_named_by_its_graph(ys, options, message):
    with pytest.raises(ValueError, match=message):
        found(ys, **options)
