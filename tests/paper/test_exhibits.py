"""Every figure and table of the paper has its config, complete up to the data that it lacks."""

from functools import cache

import pytest

from molhpft.config.build import build_recipes, shaped_network
from molhpft.config.changes import SWEEP, read_config
from molhpft.domains.molecules import ogb
from molhpft.paper import needs
from molhpft.paper.exhibits import EXHIBITS, ILLUSTRATIONS, config_folder, find
from molhpft.paper.paper_tables import NOT_AT_HAND, cells, rich_table
from molhpft.paper.printed import SIZES, TABLES
from molhpft.paper.show import show
from molhpft.paper.toy_figures import check_toy_config
from molhpft.sweep.grids import Setting, planned

ALL = [
    (exhibit, stand_in)
    for exhibit in EXHIBITS.values()
    for stand_in in ((False, True) if exhibit.stand_in else (False,))
]
DRAWN_OF_RUNS = {"curves", "distances", "table", "sizes"}
SWEPT = [pair for pair in ALL if pair[0].kind in DRAWN_OF_RUNS - {"sizes"}]


def named(value):
    return value if isinstance(value, bool) else value.name


def raw_config(exhibit, stand_in):
    return read_config(exhibit.config(stand_in=stand_in))


@cache
def grids_of(exhibit, stand_in):
    """Trials of an exhibit's sweep, whose configs are parsed once: they are hundreds."""
    return planned(raw_config(exhibit, stand_in))


def test_every_figure_and_table_is_there_or_is_an_illustration():
    figures = {*EXHIBITS, *ILLUSTRATIONS}
    assert figures - {f"fig{k}" for k in range(1, 17)} == {f"table{k}" for k in range(1, 9)}


def test_there_is_no_config_that_nothing_is_made_from():
    made = {exhibit.config(stand_in=stand_in).name for exhibit, stand_in in ALL}
    assert made == {path.name for path in config_folder().glob("*.yaml")}


@pytest.mark.slow
@pytest.mark.parametrize(("exhibit", "stand_in"), SWEPT, ids=named)
def test_a_sweep_has_three_seeds_of_everything(exhibit, stand_in):
    for grid in grids_of(exhibit, stand_in):
        for setting in grid:
            assert len(setting) >= 3
            assert all(build_recipes(trial.config) for trial in setting)


@pytest.mark.slow
def test_every_network_of_the_paper_can_be_built_before_anything_is_read():
    networks = {}
    for exhibit, stand_in in SWEPT:
        for grid in grids_of(exhibit, stand_in):
            for config in (setting[0].config for setting in grid):
                shape = {k: v for k, v in config.encoder.options.items() if k != "weights"}
                networks[repr((config.encoder.name, shape, config.head, config.cut))] = config
    for config in networks.values():
        parts = (config.encoder, config.head, config.cut)
        network = shaped_network(*parts, standardise=False, outputs=2)
        assert network.backbone.names


@pytest.mark.parametrize("exhibit", [e for e, s in ALL if not s and e.stand_in], ids=named)
def test_what_the_paper_has_and_we_have_not_is_said_with_its_place(exhibit, tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_DATA", str(tmp_path / "ogb"))
    with pytest.raises(FileNotFoundError, match="--stand-in") as error:
        show(exhibit.name, tmp_path / "out")
    message = str(error.value)
    assert message.startswith(f"{exhibit.name} needs in {tmp_path}: ")
    for name in needs.needed(raw_config(exhibit, False)):
        assert f"{needs.place(name).relative_to(tmp_path)} ({needs.PUBLISHED[name]}" in message
    assert not (tmp_path / "out").exists()


def test_an_absent_set_of_ogb_is_absent_wherever_a_config_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_DATA", str(tmp_path / "mine"))
    sweep = {SWEEP: [{"task": ["ogbg-moltox21"]}, {"task.name": ["ogbg-molbace"]}]}
    raw = {"task": {"name": "ogbg-molhiv"}, **sweep}
    (tmp_path / "mine" / "ogbg_molhiv").mkdir(parents=True)
    assert needs.needed(raw) == ["ogbg-molhiv", "ogbg-moltox21", "ogbg-molbace"]
    assert needs.absent(raw) == ["ogbg-moltox21", "ogbg-molbace"]
    assert "mine/ogbg_moltox21 (mapping/, raw/, split/ of http://" in needs.described(
        needs.absent(raw)
    )


def test_the_sizes_are_listed_without_the_data_and_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_DATA", str(tmp_path / "ogb"))
    monkeypatch.setattr(ogb, "fetch_archive", refuse)
    made = show("table4", tmp_path / "out")
    assert {row["here"] for row in made.rows} == {NOT_AT_HAND}
    caption = str(made.table.caption)
    for name in ("ogb/ogbg_moltox21 (mapping/", "vision/stl10_binary (train_X.bin"):
        assert name in caption


def test_a_set_of_ogb_that_cannot_be_fetched_is_said_before_any_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_DATA", str(tmp_path / "ogb"))
    monkeypatch.setattr(ogb, "fetch_archive", refuse)
    with pytest.raises(FileNotFoundError, match=r"put the mapping, raw and split folders of http"):
        show("fig15", tmp_path / "out", stand_in=True)
    assert not (tmp_path / "out").exists()


def refuse(url, *_, **__):
    raise ConnectionError(f"{url} cannot be reached")


def test_relative_paths_become_whole_wherever_they_stand(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_DATA", str(tmp_path / "ogb"))
    raw = {
        "task": {"path": "a/b", "size": 3},
        "encoder": {"weights": "gcn_structure"},
        "sweep": [{"task.path": ["c", "/d"], "encoder": [{"weights": "w.pth"}, {"weights": None}]}],
    }
    assert needs.needed(raw) == ["a/b", "c", "w.pth"]
    whole = needs.located(raw)
    assert whole["task"] == {"path": str(tmp_path / "a/b"), "size": 3}
    assert whole["encoder"] == raw["encoder"]
    (grid,) = whole["sweep"]
    assert grid["task.path"] == [str(tmp_path / "c"), "/d"]
    assert grid["encoder"] == [{"weights": str(tmp_path / "w.pth")}, {"weights": None}]


def test_everything_that_any_config_names_is_said_where_to_find():
    for exhibit, stand_in in ALL:
        assert {*needs.needed(raw_config(exhibit, stand_in))} <= {*needs.PUBLISHED}


@pytest.mark.parametrize("exhibit", [e for e, _ in ALL if e.kind not in DRAWN_OF_RUNS], ids=named)
def test_a_figure_of_the_toy_is_checked(exhibit):
    assert check_toy_config(exhibit.name, raw_config(exhibit, False))[2]


@pytest.mark.parametrize(("name", "message"), [("fig9", "illustration"), ("fig33", "mean fig3")])
def test_a_wrong_name_lists_the_right_ones(name, message):
    with pytest.raises(ValueError, match=message) as error:
        find(name)
    assert "fig16, table1" in str(error.value)


@pytest.mark.parametrize(("name", "table"), TABLES.items(), ids=str)
def test_a_column_of_a_table_has_a_number_for_each_row(name, table):
    assert all(len(numbers) == len(table.rows) for numbers in table.columns.values())
    assert {*table.stands_for} <= {*table.columns}


WANTED = {  # what the settings of a column are, in order
    "table1": [("ft", "linear"), ("lp_ft", "linear"), ("hp_ft", "linear"), ("ls_hp_ft", "linear")],
    "table3": [("hp_ft", "linear")] * 4,
    "table5": [("hp_ft", "linear"), ("hp_ft", "mlp"), *[("hp_ft", "linear")] * 3],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exhibit", "stand_in"), [pair for pair in SWEPT if pair[0].kind == "table"], ids=named
)
def test_the_rows_of_a_table_are_read_from_the_runs_they_name(exhibit, stand_in):
    table, grids = TABLES[exhibit.name], grids_of(exhibit, stand_in)
    names = table.stands_for if stand_in else tuple(table.columns)
    assert len(grids) == len(names) * table.grids
    wanted = WANTED.get(exhibit.name, WANTED["table5"])
    for k in range(0, len(grids), table.grids):
        configs = [setting[0].config for grid in grids[k : k + table.grids] for setting in grid]
        found = [(config.method.name, config.head.name) for config in configs]
        cuts = [config.cut for config in configs]
        if exhibit.name == "table2":
            trick = found[1]
            assert found[0] == ("hp_ft", "linear")
            column = names[k // table.grids]
            assert {
                "MLP": ("hp_ft", "mlp"),
                "lsH": ("ls_hp_ft", "linear"),
                "opp": ("opposite_energy", "linear"),
            }[column[:3]] == trick
            continue
        assert found == wanted
        if exhibit.name != "table1":
            # the later the cut, the earlier its row
            own = [cut for cut in cuts if cut]
            assert own == sorted(own, reverse=True)
            assert len(own) == 3


def started(task, weights):
    """What the summary of a run says of its task and encoder."""
    digest = weights and "its digest"
    about = {"encoder": "gcn", "weights": weights or "none (random)", "weights_digest": digest}
    return {"task": task, **about}


def branch(tau, train, valid, distance=2.0):
    shift = {"cosine": 0.9, "distance": distance}
    return {"tau": tau, "probe": {"train": train}, "final": {"valid": valid}, "shift": shift}


def test_a_cell_has_the_chosen_branch_and_the_longest_probe():
    branches = [branch(4, 0.5, 0.9), branch(16, 0.7, 0.8)]
    scored = {"metric": "rocauc", "chosen_tau": 4, "branches": branches}
    setting = Setting([{**started("mnist", "weights/x.pth"), **scored}])
    found = cells(TABLES["table2"], [[setting, setting]] * 3, stand_in=True)
    here = {cell.row: cell.here[0] for cell in found if cell.column.startswith("lsHP")}
    assert here["HP-train-acc, trick"] == pytest.approx(70)
    assert here["FT-val-acc, baseline"] == pytest.approx(90)
    assert here["1 - cosine, trick"] == pytest.approx(0.1)
    assert here["distance, trick"] == 2.0
    assert {(cell.of, cell.score) for cell in found} == {("mnist from x", "ROC-AUC (%)")}


@pytest.mark.parametrize(("metric", "unit"), [("accuracy", "accuracy (%)"), ("rmse", "rmse")])
def test_a_table_says_unit_and_seeds(metric, unit):
    scored = {"metric": metric, "chosen_tau": 4, "branches": [branch(4, 0.5, 0.9)]}
    setting = Setting([{**started("a", None), **scored}] * 4)
    found = cells(TABLES["table3"], [[setting] * 4], stand_in=True)
    assert {cell.of for cell in found} == {"a from gcn, random"}
    assert {cell.score for cell in found} == {unit}
    table = rich_table(found, "Table 3 on a stand-in")
    assert "over 4 seeds" in str(table.caption)
    assert f"{unit}\n(printed: Quick)" in str(table.columns[1].header)


def test_a_sweep_with_another_number_of_grids_is_refused():
    with pytest.raises(ValueError, match="1 grids for each of Quick, it has 2"):
        cells(TABLES["table3"], [[], []], stand_in=True)


def test_the_sizes_are_those_of_the_config():
    assert {*read_config(find("table4").config(stand_in=False))["sizes"]} == {*SIZES}


def test_settings_stand_in_the_order_of_their_grid():
    raw = {
        "task": "toy",
        "encoder": "toy_mlp",
        SWEEP: {"method": ["lp_ft", {"name": "hp_ft", "tau": [1]}, "ft"], "seeds": 2},
    }
    (grid,) = planned(raw)
    assert [setting[0].config.method.name for setting in grid] == ["lp_ft", "hp_ft", "ft"]
    assert [[trial.config.seed for trial in setting] for setting in grid] == [[0, 1]] * 3
