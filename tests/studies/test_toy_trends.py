"""The paper's trends, in one small toy study on scikit-learn's digits that all tests here read."""

import json
from itertools import pairwise

import pytest
import torch
from rich.console import Console

from molhpft.studies.toy_study import toy_study

pytestmark = pytest.mark.slow

TAUS = (0, 2, 16, 128, 512)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLHPFT_DATA", "absent")
        out = tmp_path_factory.mktemp("toy") / "new"
        return toy_study(out, taus=TAUS, infinity=50_000, per_class=300)


def column(study, group, name):
    return [row[group][name] for row in study.rows]


def falls(values):
    return all(a > b for a, b in pairwise(values))


def test_there_is_a_row_for_every_tau_and_one_for_infinity(study):
    assert [row["tau"] for row in study.rows] == [*TAUS, 50_000]


def test_energy_falls_with_tau(study):
    assert falls(column(study, "energy", "aie"))


def test_distance_falls_with_tau(study):
    assert falls(column(study, "shift", "distance"))


def test_cosine_rises_with_tau(study):
    assert falls([-cosine for cosine in column(study, "shift", "cosine")])


@pytest.mark.parametrize("name", ["dot", "norm"])
def test_dot_product_and_norm_rise_and_then_fall_with_tau(study, name):
    values = column(study, "shift", name)
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
def test_the_strongly_adapted_backbone_rejects_the_heads_of_others(study, split):
    scores = study.exchange[split]
    rest = scores[1:, 1:]
    strange = (rest.sum() - rest.trace()) / (rest.numel() - len(rest))
    assert scores[0, 1:].mean() < scores[0, 0] - 0.2
    assert scores[0, 1:].mean() < strange - 0.1


def test_gradient_and_change_of_the_head_fall_with_tau(study):
    assert falls(column(study, "head", "gradient"))
    changes = column(study, "head", "change")
    assert changes[0] > 5 * changes[-1]


def test_the_kernel_of_a_pretrained_backbone_changes_less_than_that_of_a_random_one(study):
    own, other = study.kernels["pretrained"], study.kernels["random"]
    assert min(own.train[-1], other.train[-1]) > 0.95  # an untrained one would not have moved
    assert own.from_start[-1] < other.from_start[-1] / 2
    assert max(own.from_last) < max(other.from_last)


def test_the_reading_says_that_the_size_of_heads_was_chosen(study):
    assert "5 times as large as PyTorch makes them, which is our choice" in study.reading


@pytest.mark.parametrize("split", ["train", "valid"])
def test_the_diagonal_of_the_exchange_has_the_networks_as_they_are(study, split):
    own = {row["tau"]: row["final"][split] for row in study.rows}
    expected = torch.tensor([own[tau] for tau in study.exchanged_taus], dtype=torch.float64)
    torch.testing.assert_close(study.exchange[split].diag(), expected)


def test_every_figure_is_a_picture(study):
    assert list(study.figures) == ["2", "3", "6", "11"]
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
    norms = column(study, "shift", "norm")
    peak = study.rows[norms.index(max(norms))]["tau"]
    assert f"the norm at tau {peak:,}." in study.reading
    assert "From tau 0 to tau 50,000 the energy goes from" in study.reading


def test_the_line_chosen_validates_best(study):
    _, row = study.lines[study.chosen]
    assert row["final"]["valid"] == max(row["final"]["valid"] for _, row in study.lines)


def test_the_summary_is_plain_values(study):
    content = json.loads(json.dumps(study.summary))
    assert content["rows"][0]["method"] == "FT"
    assert content["rows"][0]["head"]["gradient"] > 0
    assert set(content["exchange"]) == {"train", "valid"}
