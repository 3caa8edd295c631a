"""What a person reads in the terminal: nothing is cut, lost or marked wrongly."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from molhpft.config.schema import parse_config
from molhpft.core.metrics import score_name, show
from molhpft.results.terminal import branch_table, data_tables, encoder_table, reading, run_table
from molhpft.run.run import run

WIDTH = 132  # what the command gives to a pipe
SHIFT = {"distance": 2.25, "cosine": 0.5, "dot": 4.125, "norm": 3.0625, "start_norm": 2.5}


def branch(tau, further=(), *, shift=SHIFT):
    """A row with a score of its own in every cell."""
    splits = ("train", "valid", "test", *further)
    scores = {
        group: {split: (tau + 7 * k + first) / 1000 for k, split in enumerate(splits)}
        for group, first in (("probe", 100), ("final", 500))
    }
    energy = {"aie": 1.5 / (1 + tau), "per_entry": 0.25, "balanced": None}
    return {"tau": tau, "energy": energy, "shift": shift, **scores}


def summary(*branches, chosen=0, metric="rocauc"):
    names = {"task": "mine", "encoder": "gcn_pretrain_gnns", "method": "ls_hp_ft"}
    return {**names, "metric": metric, "chosen_tau": chosen, "branches": list(branches)}


def printed(*tables, width=WIDTH, styled=False):
    console = Console(width=width, force_terminal=styled, color_system="256" if styled else None)
    with console.capture() as capture:
        for table in tables:
            console.print(table)
    return capture.get()


def header(table):
    return [str(column.header).replace("\n", " ") for column in table.columns]


def cells(table, column):
    return [str(cell) for cell in table.columns[header(table).index(column)].cells]


def unfolded(text, border):
    """What stands in each column of a printed table, top to bottom, its lines run together."""
    lines = [line.split(border)[1:-1] for line in text.splitlines() if border in line]
    return [
        "".join(piece.replace(" ", "") for piece in column) for column in zip(*lines, strict=True)
    ]


def test_columns_are_the_splits_further_ones_beside_test_each_with_its_own_score():
    scores = ["HP train", "HP valid", "HP test", "FT valid", "FT test"]
    further = ["HP ood", "FT ood", "HP later", "FT later"]
    shifts = ["distance", "cosine", "dot", "norm"]
    plain = run_table(summary(branch(0)))
    assert header(plain) == ["method", "tau", "AIE", *scores, *shifts]
    assert plain.title.plain == "mine, gcn_pretrain_gnns, score: ROC-AUC (%)"
    rows = [branch(tau, ["ood", "later"]) for tau in (0, 4, 16)]
    table = run_table(summary(*rows))
    assert header(table) == ["method", "tau", "AIE", *scores, *further, *shifts]
    for name in (*scores, *further):
        group = {"HP": "probe", "FT": "final"}[name[:2]]
        assert cells(table, name) == [f"{100 * row[group][name[3:]]:.2f}" for row in rows]


@pytest.mark.parametrize("further", [[], ["ood"], ["scaffold"], ["ood", "temporal"]])
def test_no_column_is_lost_and_no_number_folded_in_the_width_of_a_pipe(further):
    table = run_table(summary(*(branch(tau, further) for tau in (0, 50, 200)), chosen=50))
    text = printed(table)
    assert unfolded(text, "┃") == [name.replace(" ", "") for name in header(table)]
    rows = [re.findall(r"[^│ ]+", line) for line in text.splitlines() if "│" in line]
    columns = [column.cells for column in table.columns]
    assert rows == [list(row) for row in zip(*columns, strict=True)]


def test_head_norm_and_calibration_are_shown_where_runs_have_them():
    more = {"head": {"norm": 1.25}, "ece": {"train": 0.5, "test": 0.0625}}
    table = run_table(summary(*({**branch(tau), **more} for tau in (0, 50, 200)), chosen=50))
    assert header(table)[2:4] == ["AIE", "head norm"]
    assert cells(table, "head norm") == ["1.250"] * 3
    assert cells(table, "ECE test") == ["0.062"] * 3
    assert "head norm: length" in str(table.caption)
    assert "ECE: expected" in str(table.caption)
    text = printed(table)
    assert unfolded(text, "┃") == [name.replace(" ", "") for name in header(table)]
    numbers = summary({**branch(0), "head": {"norm": 1.25}})
    assert "ECE test" not in header(run_table(numbers))


@settings(max_examples=20, deadline=None)
@given(st.integers(90, 200))
def test_no_digit_is_cut_in_a_narrow_terminal(width):
    table = run_table(summary(branch(0, ["ood"]), branch(200, ["ood"])))
    text = printed(table, width=width)
    assert unfolded(text, "│") == ["".join(column.cells) for column in table.columns]


def test_what_is_not_there_is_a_dash():
    rows = [("FT", branch(0, ["ood"])), ("LP", branch(4, shift={**SHIFT, "cosine": None}))]
    table = branch_table(rows, title="", metric="ap", chosen=0)
    assert cells(table, "FT ood")[1] == cells(table, "HP ood")[1] == "-"
    assert cells(table, "cosine") == ["0.500", "-"]


def test_a_solved_head_has_a_dash_for_its_tau():
    row = {**branch(0), "tau": None, "inverse_penalty": 0.1}
    assert cells(run_table(summary(row, chosen=None)), "tau") == ["-"]


def test_the_chosen_branch_and_no_other_is_marked():
    table = run_table(summary(branch(0), branch(4), branch(16), chosen=4))
    assert [bool(row.style) for row in table.rows] == [False, True, False]
    (marked,) = [line for line in printed(table, styled=True).splitlines() if "\x1b[1;32m" in line]
    assert " 4 " in re.sub(r"\x1b\[[\d;]*m", "", marked)


@given(fraction=st.floats(0, 1), error=st.floats(-1e6, 0))
def test_a_fraction_is_shown_in_percent_and_an_error_without_its_minus(fraction, error):
    for metric in ("rocauc", "ap", "accuracy"):
        assert float(show(fraction, metric)) == pytest.approx(100 * fraction, abs=0.0051)
    shown = float(show(error, "neg_rmse").replace(",", ""))
    assert shown == pytest.approx(-error, abs=0.000051 if error > -100 else 0.00051 * -error)
    for metric in ("rocauc", "neg_rmse", "another"):
        assert show(None, metric) == "-"
        assert score_name(metric)


def test_the_reading_names_the_chosen_tau_its_scores_and_what_tau_changed():
    text = reading(summary(branch(0), branch(4), branch(9), chosen=4))
    assert text.startswith("Validation chooses tau 4: ROC-AUC (%) 51.10 on validation and 51.80")
    assert "energy goes from 1.500 to 0.150" in text
    assert "distribution" not in text


def test_the_reading_shows_numbers_that_are_none_as_dashes():
    lost = branch(4, shift=dict.fromkeys(SHIFT))
    lost["energy"]["aie"] = lost["final"]["valid"] = None
    text = reading(summary(branch(0), lost, chosen=4))
    assert "ROC-AUC (%) - on validation" in text
    assert "the energy goes from 1.500 to - and" in text
    assert text.endswith("from 2.25 to -.")


def test_the_reading_gives_scores_in_and_out_of_distribution():
    both = reading(summary(branch(0, ["ood", "later"]), branch(4, ["ood", "later"]), chosen=4))
    expected = "51.80 on test (in distribution), 52.50 on ood, 53.20 on later (out of distribution)"
    assert expected in both
    single = reading(summary(branch(0, ["ood"])))
    assert single.startswith("This run ends with: ")
    assert single.endswith("51.40 on test (in distribution), 52.10 on ood (out of distribution).")


def test_molecules_set_aside_for_calibrating_are_not_out_of_distribution():
    given = summary(branch(0, ["calibration", "ood"]))
    assert "calibration" not in reading(given)
    assert "on ood (out of distribution)" in reading(given)
    assert "HP calibration" not in header(run_table(given))


def test_a_run_reports_both_distributions_of_a_random_and_scaffold_split(tmp_path):
    path = tmp_path / "rings.csv"
    rows = [row for n in range(3, 33) for row in (f"{'C' * n}O,{n}", f"C1{'C' * n}1N,{n}")]
    path.write_text("\n".join(["smiles,size", *rows]) + "\n")
    task = {"name": "csv", "path": str(path), "split": "random_and_scaffold", "split_seed": 1}
    small = {"name": "gcn", "layers": 1, "width": 4}
    config = {"task": task, "encoder": small, "method": "ft", "finetune": {"epochs": 1}}
    result = run(parse_config(config), tmp_path / "runs").read_json("summary.json")
    assert list(result["sizes"]) == ["train", "valid", "test", "ood"]
    (score,) = cells(run_table(result), "FT ood")
    assert float(score) == pytest.approx(-result["branches"][0]["final"]["ood"], abs=0.0001)
    assert "score: RMSE" in str(run_table(result).title)
    assert reading(result).startswith("This run ends with: RMSE ")
    assert f"{score} on ood (out of distribution)" in reading(result)


def description(*targets, **changes):
    about = {
        "name": "mine",
        "place": "mine.csv",
        "objective": "multilabel",
        "metric": "rocauc",
        "sizes": {"train": 12345, "valid": 6, "test": 7, "ood": 8},
        **{"molecules": 9876543, "unreadable": 0, "atoms": 9, "bonds": 8, "memory": "0.5 MB"},
    }
    return {**about, **changes, "targets": list(targets)}


def test_a_data_set_shows_every_split_and_its_numbers_with_separators():
    for targets in ([{"name": "y", "labels": 3}], []):
        text = printed(*data_tables(description(*targets)))
        for words in ("12,345", "9,876,543", "split ood", "0.5 MB", "multilabel"):
            assert words in text


def test_targets_of_two_kinds_each_show_their_own_numbers():
    active = {"name": "active", "labels": 5, "missing": 0, "positive": 0.25}
    logp = {"name": "logp", "labels": 4, "missing": 1, "mean": 1.5, "std": None}
    _, targets = data_tables(description(active, logp))
    assert header(targets) == ["name", "labels", "missing", "positive", "mean", "std"]
    assert cells(targets, "positive") == ["0.250", "-"]
    assert cells(targets, "mean") == ["-", "1.500"]


def test_overlap_says_what_was_the_same_as_in_the_training_of_the_other():
    row = {"split": "train", "molecules": 3, "shared": 1, "scaffolds": 2}
    *_, overlap = data_tables(description({"name": "y"}) | {"overlap": [row]})
    assert "--against" in str(overlap.title)
    assert header(overlap) == ["split", "molecules", "same molecule", "same scaffold"]
    assert cells(overlap, "same scaffold") == ["2"]


@settings(max_examples=40, deadline=None)
@given(st.text("ab[]/.\\", min_size=1, max_size=9))
def test_brackets_in_a_name_are_shown_and_not_read_as_a_style(name):
    about = description({"name": name, "labels": 1}, name=name, place=name, sizes={name: 1})
    text = printed(*data_tables(about))
    assert len(re.findall(rf"(?:^|[│┃] *|split ){re.escape(name)} ", text, re.M)) == 4
    assert name in printed(run_table({**summary(branch(0)), "task": name}))


def test_an_encoder_shows_its_options_and_the_weights_it_takes():
    options = {"layers": 5, "jk": [1]}
    encoder = {"name": "gcn", "what": "A GCN.", "options": options, "files": "w[0]"}
    text = printed(encoder_table([encoder]))
    for words in ("gcn", "A GCN.", "layers: 5", "jk: [1]", "w[0]"):
        assert words in text
