"""Pictures are written with their numbers, whatever they are drawn of."""

import csv
import shutil
from functools import wraps

import pytest

from molhpft.paper import toy_figures
from molhpft.paper.exhibits import EXHIBITS
from molhpft.paper.pictures import averaged
from molhpft.paper.show import list_table, rows, show
from molhpft.paper.sweep_figures import curves_picture, distances_picture
from molhpft.results.statistics import mean_interval
from molhpft.studies import toy_study
from molhpft.studies.toy_record import toy_record
from molhpft.sweep.grids import Setting

TINY = ["toy.taus=[0, 1, 3]", "toy.infinity=20", "toy.per_class=12"]
SHIFT = {"distance": 2.0, "cosine": 0.9, "dot": 3.0, "norm": 2.0, "start_norm": 1.5}


def summary(seed, task, weights):
    rows = [
        {
            "tau": tau,
            "probe": {"train": 0.1 * tau},
            "final": {"valid": 0.2 * tau + 0.01 * seed},
            "energy": {"aie": 1 / (1 + tau)},
            "shift": SHIFT,
        }
        for tau in (0, 1, 4)
    ]
    about = {"task": task, "encoder": "e", "weights": f"{weights}.pth", "weights_digest": "of it"}
    return {**about, "metric": "accuracy", "chosen_tau": 1, "branches": rows}


SETTINGS = [
    Setting([summary(k, task, weights) for k in range(3)])
    for task, weights in (("a", "b"), ("c", "d"))
]


def numbers(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_line_over_seeds_has_its_interval():
    line = averaged("", [[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    expected = mean_interval([1.0, 2.0, 4.0])
    assert line.means[0] == pytest.approx(expected.mean)
    assert (line.low[0], line.high[0]) == pytest.approx((expected.low, expected.high))
    assert not averaged("", [[1.0, 5.0]]).low


@pytest.mark.parametrize("picture", [curves_picture, distances_picture])
def test_a_sweep_is_drawn_with_its_numbers(picture, tmp_path):
    png, svg, table = picture(SETTINGS).write(tmp_path / "new", "fig", "A title")
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in svg.read_text(encoding="utf-8")
    rows = numbers(table)
    assert {row["x"] for row in rows} == {"0", "1", "4"}
    assert {row["panel"].split(" | ")[0] for row in rows} >= {"a from b", "c from d"}


def test_scores_are_drawn_in_percent_with_intervals(tmp_path):
    rows = numbers(curves_picture(SETTINGS[:1]).write(tmp_path, "fig", "")[2])
    (row,) = [r for r in rows if "after finetuning" in r["panel"] and r["x"] == "4"]
    assert float(row["y"]) == pytest.approx(81)
    assert float(row["low"]) < 81 < float(row["high"])
    (same,) = [r for r in rows if "nergy" in r["panel"] and r["x"] == "4"]
    assert float(same["y"]) == pytest.approx(0.2)
    assert (same["low"], same["high"]) == ("", "")  # of every seed


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with a tiny Figure 3, of scikit-learn's digits."""
    out = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLHPFT_DATA", "absent")
        patch.setattr(toy_study, "_PRETRAIN_STEPS", 1)  # twenty epochs all the same
        return out, show("fig3", out, changes=TINY)


@pytest.mark.slow
def test_a_figure_of_the_toy_has_every_part_among_its_numbers(toy):
    out, made = toy
    assert [path.name for path in made.files] == ["fig3.png", "fig3.svg", "fig3.csv"]
    panels = {row["panel"] for row in numbers(out / "fig3.csv")}
    assert {"training curve, train", "Features before finetuning", "exchange, valid"} <= panels


@pytest.mark.slow
def test_another_figure_of_the_same_toy_computes_nothing(toy, monkeypatch):
    out, _ = toy
    monkeypatch.setenv("MOLHPFT_DATA", "absent")
    monkeypatch.setitem(toy_figures.STUDIES, "toy", refuse)
    show("fig2", out, changes=TINY)
    with pytest.raises(AssertionError):
        show("fig2", out, changes=["toy.taus=[0, 2]", *TINY[1:]])


@pytest.mark.slow
def test_a_damaged_record_of_a_toy_is_named_with_what_to_do(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_DATA", "absent")
    copy = shutil.copytree(toy[0], tmp_path / "copy")
    for record in (copy / "records" / "toy").iterdir():
        record.write_text("{")
    with pytest.raises(ValueError, match=r"\.json is damaged .*; delete it, and it is computed"):
        show("fig2", copy, changes=TINY)


@wraps(toy_record)
def refuse(**options):
    raise AssertionError


@pytest.mark.slow
def test_figures_of_one_toy_share_what_was_computed(toy, monkeypatch):
    out, _ = toy
    monkeypatch.setenv("MOLHPFT_DATA", "absent")
    for name in ("fig2", "fig11"):
        more = ["seeds=1"] if name == "fig11" else []
        show(name, out, changes=[*TINY, *more])
    assert len(list((out / "records" / "toy").iterdir())) == 1
    rows = [row for row in numbers(out / "fig2.csv") if row["panel"].startswith("p(correct)")]
    assert len(rows) == 4 * 36  # every training example, at every tau


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("fig2", ["seeds=3"], "fig2 shows one seed; give toy.seed"),
        ("fig11", ["seeds=0"], "at least 1, got 0"),
        ("fig3", ["toy.tau=1"], "unknown key toy.tau; did you mean toy.taus"),
        ("fig3", ["linear.seed=1"], "should name one study"),
    ],
)
def test_a_key_that_does_not_fit_is_refused(name, changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        show(name, tmp_path, changes=changes)


def test_a_stand_in_for_what_is_always_at_hand_is_refused(tmp_path):
    with pytest.raises(ValueError, match="fig2 needs no stand-in"):
        show("fig2", tmp_path, stand_in=True)


def test_a_run_of_ones_own_is_refused_where_it_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match="--config is for fig1, fig4, fig13, fig14, fig15"):
        show("table1", tmp_path, config=tmp_path / "a.yaml")


def test_the_list_has_a_line_and_a_command_for_each(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_DATA", str(tmp_path / "ogb"))
    listed = {row["name"]: row for row in rows()}
    assert list(listed) == list(EXHIBITS)
    assert (listed["fig3"]["at_hand"], listed["fig14"]["at_hand"]) == ("yes", "no: 2 files")
    assert listed["fig3"]["command"] == "molhpft paper fig3 --out paper"
    assert listed["fig14"]["command"] == "molhpft paper fig14 --stand-in --out paper"
    assert list_table().row_count == len(EXHIBITS)


OWN = """
task: {name: toy, per_class: 12}
encoder: toy_mlp
method: {name: hp_ft, tau: [0, 2]}
finetune: {epochs: 1}
"""


@pytest.mark.slow
def test_figure_4_is_drawn_of_a_run_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_DATA", "absent")
    (tmp_path / "own.yaml").write_text(OWN)
    made = show("fig4", tmp_path / "out", config=tmp_path / "own.yaml")
    assert made.title == "Figure 4 of Ren et al. (2023) on own"
    assert {row["x"] for row in numbers(tmp_path / "out" / "fig4.csv")} == {"0", "2"}
