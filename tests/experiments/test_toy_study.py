"""The paper's trends, on scikit-learn's digits: one small study that all tests here look at."""

import json
from itertools import pairwise

import pytest
import torch
from rich.console import Console

from molhpft.experiments.toy_study import toy_study

TAUS = (0, 2, 16, 128, 512)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLHPFT_DATA", "absent")
        out = tmp_path_factory.mktemp("toy") / "new"
        return toy_study(out, taus=TAUS, infinity=3000, per_class=300)


def along(study, group, name):
    return [row[group][name] for row in study.rows]


def falls(values):
    return all(a > b for a, b in pairwise(values))


def off_diagonal(scores):
    """Mean score of each network's backbone under the others' heads and the reverse, (m,)."""
    strange = scores - scores.diag().diag()
    return (strange.sum(0) + strange.sum(1)) / (2 * (len(scores) - 1))


def test_there_is_a_row_for_every_tau_and_one_for_infinity(study):
    assert [row["tau"] for row in study.rows] == [*TAUS, 3000]


def test_energy_falls_with_tau(study):
    assert falls(along(study, "energy", "aie"))


def test_distance_falls_with_tau(study):
    assert falls(along(study, "shift", "distance"))


def test_cosine_rises_with_tau(study):
    assert falls([-cosine for cosine in along(study, "shift", "cosine")])


@pytest.mark.parametrize("name", ["dot", "norm"])
def test_dot_product_and_norm_rise_and_then_fall_with_tau(study, name):
    values = along(study, "shift", name)
    assert values[0] < max(values[1:-1]) > values[-1]


def test_an_mlp_head_leaves_less_energy_and_moves_features_less(study):
    mlp, linear = dict(study.variants)["HP-FT, MLP head"], study.rows[-2]
    assert mlp["tau"] == linear["tau"] == TAUS[-1]
    assert mlp["energy"]["aie"] < linear["energy"]["aie"]
    assert mlp["shift"]["distance"] < linear["shift"]["distance"]


def test_smoothed_probing_moves_features_farther_at_the_same_accuracy(study):
    smoothed, plain = dict(study.variants)["lsHP-FT"], study.rows[-2]
    assert smoothed["shift"]["distance"] > plain["shift"]["distance"]
    assert smoothed["energy"]["aie"] > plain["energy"]["aie"]
    assert smoothed["probe"]["valid"] == pytest.approx(plain["probe"]["valid"], abs=0.02)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_networks_of_small_tau_fit_the_others_least(study, split):
    means = off_diagonal(study.exchange[split])
    assert means[0] < means[1] < means[2:].min()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_the_diagonal_of_the_exchange_has_the_networks_as_they_are(study, split):
    own = {row["tau"]: row["final"][split] for row in study.rows}
    expected = torch.tensor([own[tau] for tau in study.exchanged], dtype=torch.float64)
    torch.testing.assert_close(study.exchange[split].diag(), expected)


def test_every_figure_is_a_picture(study):
    assert list(study.figures) == ["2", "3", "11"]
    for path in study.figures.values():
        assert path.name.startswith("toy_digits_figure")
        assert path.read_bytes()[:4] == b"\x89PNG"


def test_the_table_has_a_line_for_everything_that_was_finetuned(study):
    assert [method for method, _ in study.lines] == [
        "FT",
        *["HP-FT"] * 4,
        "LP-FT",
        "HP-FT, MLP head",
        "lsHP-FT",
    ]
    assert study.table.row_count == 8
    console = Console(width=140)
    with console.capture() as capture:
        console.print(study.table)
    assert "toy_digits" in capture.get()
    assert "molecules" not in capture.get()


def test_the_reading_says_where_the_peaks_are(study):
    norms = along(study, "shift", "norm")
    peak = study.rows[norms.index(max(norms))]["tau"]
    assert f"the norm at tau {peak:,}." in study.reading
    assert "From tau 0 to tau 3,000 the energy goes from" in study.reading


def test_the_line_chosen_validates_best(study):
    _, row = study.lines[study.chosen]
    assert row["final"]["valid"] == max(row["final"]["valid"] for _, row in study.lines)


def test_the_summary_is_plain_values(study):
    content = json.loads(json.dumps(study.summary))
    assert content["rows"][0]["method"] == "FT"
    assert content["slope"] > 0
    assert set(content["exchange"]) == {"train", "valid"}


@pytest.mark.parametrize(
    "taus", [(), (1,), (1, 1), (2, 1), (-1, 3), (0, 50)], ids=lambda taus: str(list(taus))
)
def test_taus_that_do_not_rise_to_infinity_are_refused(taus, tmp_path):
    with pytest.raises(ValueError, match=r"rising from 0 and below infinity \(50\), got \["):
        toy_study(tmp_path, taus=taus, infinity=50)
