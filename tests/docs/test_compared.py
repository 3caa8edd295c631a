"""The picture of the methods shows what the tables of benchmarks/README.md say, and all of it."""

import pytest

from tests.docs import pages

compared = pages.script("compared")

PRINTED = """
## Methods on Tox21 from a public GCN

| method | test | valid |
|---|---|---|
| **hp-ft, mlp head** | **77.41 ± 0.35** | **80.08 ± 0.29** |
| ft | 75.79 ± 1.19 | 78.20 ± 0.51 |

Prose.

## Methods on Tox21 from a GCN pretrained on MUV

| ft | 60.00 ± 1.00 | 61.00 ± 1.00 |
"""


def test_a_table_is_read_to_its_end_and_no_further():
    scores = compared.read_scores(PRINTED, "Tox21", "a public GCN")
    assert scores == {"hp-ft, mlp head": (77.41, 0.35), "ft": (75.79, 1.19)}


@pytest.mark.parametrize("printed", ["", "\n## Methods on HIV from a public GCN\n\nsoon\n"])
def test_a_table_that_is_not_there_is_named(printed):
    with pytest.raises(ValueError, match="no table below '## Methods on HIV from a public GCN'"):
        compared.read_scores(printed, "HIV", "a public GCN")


def test_every_method_has_a_row_and_every_score_its_place():
    first, second = {"a": (70.0, 1.0), "b": (60.0, 2.0)}, {"b": (65.0, 1.0), "c": (50.0, 0.5)}
    tox21 = dict(zip(compared.COLOURS, (first, second), strict=True))
    hiv = {encoder: {"a": (1.0, 0.0)} for encoder in compared.COLOURS}
    tables = {"Tox21": tox21, "HIV": hiv}
    baselines = {"Tox21": {"forest_counts": (80.0, 0.0)}, "HIV": {"forest_counts": (81.0, 0.0)}}
    left, right = compared.draw(tables, baselines).axes
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert labels == ["a", "b", "c", "random forest, counts"]
    dots = [container.lines[0].get_xydata().tolist() for container in left.containers]
    assert [[x for x, _ in line] for line in dots] == [[70.0, 60.0], [65.0, 50.0], [80.0]]
    assert [[round(y) for _, y in line] for line in dots] == [[0, 1], [1, 2], [3]]
    assert len(right.containers) == 3


def test_baselines_without_an_encoder_have_one_dot_however_many_tables_repeat_them():
    repeated = {"a": (70.0, 1.0), "morgan-rf": (60.0, 2.0)}
    tables = {"Tox21": dict.fromkeys(compared.COLOURS, repeated)}
    tables["HIV"] = tables["Tox21"]
    baselines = {data: {"morgan-rf": (60.0, 2.0)} for data in tables}
    for axes in compared.draw(tables, baselines).axes:
        places = [x for container in axes.containers for x in container.lines[0].get_xdata()]
        assert places.count(60.0) == 1


def test_the_strongest_baseline_is_that_of_its_data_set():
    printed = "\n## Baselines\n\n| forest_counts | Tox21 | 77.65 | 79.54 |\n\n## Methods\n"
    assert compared.read_strongest(printed, "Tox21") == (77.65, 0.0)
    with pytest.raises(ValueError, match="no row of forest_counts on HIV"):
        compared.read_strongest(printed + "\n| forest_counts | HIV | 79.83 | 84.27 |\n", "HIV")


def test_the_readme_of_benchmarks_has_every_table():
    printed = (pages.ROOT / "benchmarks" / "README.md").read_text("utf-8")
    tables = [
        set(compared.read_scores(printed, data, encoder))
        for data in compared.COMPARED
        for encoder in compared.COLOURS
    ]
    assert all(methods == tables[0] for methods in tables)
    assert {"scratch", "ft", "lp-ft", "hp-ft", "morgan-rf"} < tables[0]
