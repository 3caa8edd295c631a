"""PyG data sets and lists of graphs as tasks: batches, labels, splits and fingerprints."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData, InMemoryDataset
from torch_geometric.nn.models import GIN
from torch_geometric.transforms import Constant

from molhpft.core.evaluate import take
from molhpft.core.network import Network, linear_head
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.domains.graphs.backbones import gnn_backbone
from molhpft.domains.graphs.tasks import concatenated, pyg_task
from tests.domains.graphs.rings import NODES, graph, rings_and_paths

SPLITS = {"train": range(40), "valid": range(40, 50), "test": torch.arange(50, 60)}


def ring_task(graphs=None, **changes):
    options = {"splits": SPLITS, "objective": Multiclass(), "name": "rings", "classes": 2}
    return pyg_task(graphs or rings_and_paths(), **{**options, **changes})


def ring_network(seed=0):
    torch.manual_seed(seed)
    backbone = gnn_backbone(GIN(NODES, 8, 2, norm="batch_norm"), pool="sum")
    return Network(backbone, linear_head(backbone.width, 2))


class Rings(InMemoryDataset):
    """The same graphs as a data set of torch_geometric."""

    def __init__(self, transform=None):
        super().__init__(None, transform)
        self.data, self.slices = self.collate(rings_and_paths())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=8))
def test_a_batch_holds_the_graphs_asked_for_in_that_order(rows):
    graphs, task = rings_and_paths(), ring_task()
    batch = task.examples.take(torch.tensor(rows))
    for row, taken in zip(rows, batch.inputs.to_data_list(), strict=True):
        assert all(torch.equal(taken[key], graphs[row][key]) for key in ("x", "edge_index"))
    assert batch.targets.tolist() == [int(graphs[row].y) for row in rows]


def test_labels_are_not_within_a_networks_reach():
    assert "y" not in ring_task().examples.take(torch.tensor([0, 1])).inputs


def test_a_data_set_and_the_list_of_its_graphs_are_the_same_task():
    listed, loaded = ring_task(), ring_task(Rings())
    assert listed.fingerprint == loaded.fingerprint
    assert torch.equal(listed.examples.targets, loaded.examples.targets)


def test_the_transform_of_a_data_set_is_applied():
    task = ring_task(Rings(Constant()))
    assert task.examples.take(torch.tensor([0])).inputs.x.shape[1] == NODES + 1


def test_data_sets_that_come_split_are_concatenated_row_by_row():
    parts = {"train": rings_and_paths(4), "valid": [], "test": rings_and_paths(2), "ood": Rings()}
    graphs, splits = concatenated(parts)
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 4,
        "valid": 0,
        "test": 2,
        "ood": 60,
    }
    assert torch.equal(torch.cat(list(splits.values())), torch.arange(len(graphs)))
    assert graphs[int(splits["test"][1])] is parts["test"][1]


def changed(**changes):
    graphs = rings_and_paths()
    for key, value in changes.items():
        graphs[7][key] = value
    return graphs


@pytest.mark.parametrize(
    "other",
    [
        {"graphs": changed(x=torch.zeros(6, NODES))},
        {"graphs": changed(x=changed()[7].x.double())},
        {"graphs": changed(y=torch.tensor([1 - int(changed()[7].y)]))},
        {"graphs": [*changed()[1:], changed()[0]]},
        {"splits": {**SPLITS, "test": range(51, 60)}},
        {"splits": {**SPLITS, "ood": range(51, 60)}},
        {"objective": Multiclass(ignore=-1)},
    ],
)
def test_another_graph_label_order_split_or_objective_is_another_fingerprint(other):
    assert ring_task().fingerprint == ring_task().fingerprint
    assert ring_task().fingerprint != ring_task(**other).fingerprint


def test_text_and_numbers_beside_the_tensors_count_too():
    def fingerprint(text):
        graphs = rings_and_paths()
        for one in graphs:
            one.smiles, one.energy = text, 0.5
        return ring_task(graphs).fingerprint

    assert fingerprint("CC") == fingerprint("CC") != fingerprint("CN")


def test_missing_labels_of_any_bit_pattern_are_one_fingerprint():
    nans = torch.tensor([0x7FC00000, -0x400000, 0x7FC00123], dtype=torch.int32).view(torch.float32)
    tasks = [
        ring_task([graph(3, y=y.view(1, 1)) for _ in range(60)], objective=Squared(), classes=None)
        for y in nans
    ]
    assert len({task.fingerprint for task in tasks}) == 1


def hetero():
    data = HeteroData()
    data["atom"].x = torch.zeros(2, 1)
    return data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"graphs": iter(())}, "rings should hold graphs, it holds none"),
        ({"graphs": [*changed(), graph(3)]}, "labels as y; graph 60, a Data, has no y"),
        ({"graphs": [hetero()]}, r"should hold torch_geometric\.data\.Data .* a HeteroData"),
        (
            {"graphs": changed(z=torch.zeros(6))},
            r"graph 0 has edge_attr, edge_index, edge_weight, x, y, graph 7 has .* y, z",
        ),
        ({"splits": {"train": [0, 60]}}, "split 'train' should lie in 0 to 59, got 0 to 60"),
        ({"splits": {"train": [-1]}}, "got -1 to -1"),
        ({"splits": {"train": torch.ones(60).bool()}}, "hold row numbers, it holds torch.bool"),
        ({"classes": None}, "needs classes"),
    ],
)
def test_data_that_cannot_be_a_task_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ring_task(**options)


@pytest.mark.parametrize("value", [torch.eye(3).to_sparse(), object()])
def test_what_cannot_be_compared_is_refused(value):
    graphs = rings_and_paths()
    for one in graphs:
        one.extra = value
    with pytest.raises(ValueError, match=r"dense tensors, numbers, text .*; extra is a "):
        ring_task(graphs)


def test_batches_go_where_the_task_is():
    batch = next(ring_task().to("meta").batches("valid", size=5))
    assert batch.inputs.x.is_meta
    assert batch.inputs.edge_index.is_meta
    assert batch.targets.is_meta


def test_a_snapshot_has_a_row_a_graph_in_the_order_of_the_split():
    task, network = ring_task(splits={**SPLITS, "test": [5, 2, 9]}), ring_network()
    snapshot = take(network, task.batches("test", size=2))
    alone = replace(task, splits={"test": torch.tensor([2])})
    (row,) = take(network, alone.batches("test", size=1)).features
    torch.testing.assert_close(snapshot.features[1], row)
    assert snapshot.targets.tolist() == [int(rings_and_paths()[k].y) for k in (5, 2, 9)]


NAN = float("nan")


numbers = st.floats(-1e6, 1e6, width=32) | st.just(NAN)


tables = st.integers(1, 4).flatmap(
    lambda t: st.lists(st.lists(numbers, min_size=t, max_size=t), min_size=1, max_size=6)
)


def targets_of(ys, objective=None, **options):
    task = pyg_task(
        [Data(y=y) for y in ys],
        splits={"train": range(len(ys))},
        objective=objective or Squared(),
        name="mine",
        **options,
    )
    targets = task.examples.targets
    assert task.outputs == options.get("classes", targets.shape[-1])
    return targets


@settings(max_examples=30, deadline=None)
@given(tables)
def test_numbers_become_a_row_a_graph_and_nan_stays(rows):
    ys = [torch.tensor([row]) for row in rows]
    torch.testing.assert_close(targets_of(ys), torch.tensor(rows), equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("y", [torch.tensor([[1.0]]), torch.tensor([1]), torch.tensor(1.0), 1.0, 1])
def test_a_lone_number_is_one_target_however_it_is_written(y):
    assert targets_of([y, y], Multilabel()).tolist() == [[1], [1]]


@pytest.mark.parametrize("y", [torch.tensor([2]), torch.tensor(2), torch.tensor([[2]]), 2])
def test_a_class_id_is_an_integer_however_it_is_written(y):
    ids = targets_of([y, y, -100], Multiclass(), classes=3)
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
        targets_of(ys, **options)
