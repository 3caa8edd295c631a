"""Intervals and paired tests by their definitions; choices by validation alone, with costs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from molhpft.results.statistics import (
    best_on_validation,
    compare,
    equal_budget,
    holm,
    leader,
    mean_interval,
    out_of_distribution,
    over_seeds,
    over_tau,
    paired,
    shifted_splits,
)
from molhpft.results.table import read_results
from tests.runs import write_run

SCORES = st.floats(-1, 1).map(lambda x: round(x, 6))
SAMPLES = st.lists(SCORES, min_size=2, max_size=12).filter(lambda v: np.std(v) > 1e-4)
SCORE = st.integers(0, 1000).map(lambda k: k / 1000)
SEEDS = range(4)


@settings(deadline=None)
@given(SAMPLES)
def test_the_interval_is_its_definition(values):
    interval = mean_interval([*values, float("nan")])
    n, mean = len(values), np.mean(values)
    reach = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    assert interval.n == n
    expected = (mean, mean - reach, mean + reach)
    assert (interval.mean, interval.low, interval.high) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("values", [[0.7], [0.5] * 3, [0.0] * 3])
def test_values_that_do_not_differ_have_a_mean_and_no_interval(values):
    interval = mean_interval(values)
    assert (interval.mean, interval.n) == (values[0], len(values))
    assert np.isnan([interval.low, interval.high]).all()


@pytest.mark.parametrize("values", [[], [float("nan")]])
def test_an_interval_of_nothing_is_refused(values):
    with pytest.raises(ValueError, match="at least one number"):
        mean_interval(values)


@settings(deadline=None)
@given(arrays(float, st.tuples(st.just(2), st.integers(2, 9)), elements=SCORES))
def test_a_paired_comparison_is_that_of_scipy(scores):
    if np.std(scores[0] - scores[1]) < 1e-4:
        return
    difference, p = paired(*(dict(enumerate(row.tolist())) for row in scores))
    theirs = stats.ttest_rel(*scores)
    interval = theirs.confidence_interval(0.95)
    assert p == pytest.approx(theirs.pvalue, abs=1e-9)
    assert (difference.low, difference.high) == pytest.approx(tuple(interval), abs=1e-9)
    assert difference.n == scores.shape[1]


def test_seeds_are_paired_by_number_and_not_by_place():
    difference, _ = paired({1: 0.5, 2: 0.7, 9: 0.0}, {2: 0.6, 1: 0.4, 8: 1.0})
    assert difference.mean == pytest.approx(0.1)
    assert difference.n == 2
    with pytest.raises(ValueError, match="run both with the same seeds"):
        paired({1: 0.5}, {2: 0.5})


@pytest.mark.parametrize(("by", "p"), [(0.0, 1.0), (0.25, float("nan")), (0.1, float("nan"))])
def test_one_difference_on_every_seed_has_no_interval_and_is_tested_only_where_it_is_0(by, p):
    second = {1: 0.5, 2: 0.7, 3: 0.9}  # 0.1 above these, differences are apart by rounding
    difference, own = paired({seed: score + by for seed, score in second.items()}, second)
    assert own == pytest.approx(p, nan_ok=True)
    assert difference.mean == pytest.approx(by)
    assert np.isnan([difference.low, difference.high]).all()


def test_one_shared_seed_proves_nothing():
    difference, p = paired({1: 0.9}, {1: 0.9})
    assert np.isnan(p)
    assert difference.n == 1


def naive_holm(p):
    """Holm's definition: reject in order of p while p <= alpha / (m - rank), alpha at the edge."""
    order = sorted(range(len(p)), key=lambda k: p[k])
    return [
        min(1.0, max(p[j] * (len(p) - r) for r, j in enumerate(order) if r <= order.index(k)))
        for k in range(len(p))
    ]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_its_definition(p):
    assert holm(p) == pytest.approx(naive_holm(p))


def test_a_test_that_could_not_be_made_counts_for_nothing():
    adjusted = holm([0.01, float("nan"), 0.04])
    assert adjusted[0] == pytest.approx(0.02)
    assert np.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.04)


def noisy(seed, base):
    """Scores of a seed: (valid, test) a tau, with the same luck for every method."""
    luck = [0.01, -0.02, 0.015, 0.0][seed]
    return {tau: (v + luck, t + luck) for tau, (v, t) in base.items()}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """HP-FT over three tau, FT over three rates, LP; four seeds each."""
    root = tmp_path_factory.mktemp("sweep")
    grid = {0: (0.70, 0.60), 4: (0.76, 0.63), 16: (0.74, 0.66)}
    rates = {0.1: (0.71, 0.61), 0.2: (0.73, 0.62), 0.4: (0.72, 0.69)}
    for seed in SEEDS:
        write_run(root, noisy(seed, grid), seed=seed)
        for lr, scores in rates.items():
            write_run(root, noisy(seed, {0: scores}), method="ft", seed=seed, finetune={"lr": lr})
        write_run(root, noisy(seed, {16: (0.65, 0.64)}), method="lp", seed=seed, epochs=0)
    return read_results(root)


def row_of(summary, name, by="label"):
    (row,) = summary[summary[by] == name].to_dict("records")
    return row


def test_the_reported_figure_is_test_at_best_validation(sweep):
    best = best_on_validation(sweep.table)
    assert len(best) == 3 * len(SEEDS)
    chosen = best[best["label"] == "hp-ft"]
    assert set(chosen["tau"]) == {4}  # tau 16 tests higher and validates lower
    assert row_of(over_seeds(best), "hp-ft")["final_test"] == pytest.approx(0.63 + 0.00125)


def test_what_was_searched_and_what_it_cost_stands_beside(sweep):
    summary = over_seeds(best_on_validation(sweep.table))
    costs = {
        row["label"]: (row["candidates"], row["search_epochs"], row["tau"])
        for row in summary.to_dict("records")
    }
    assert costs == {"hp-ft": (3, 9, "4"), "ft": (3, 9, "0"), "lp": (1, 0, "16")}
    assert summary["label"].tolist() == ["hp-ft", "ft", "lp"]


def test_equal_budget_gives_plain_finetuning_its_best_rate(sweep):
    summary = equal_budget(sweep.table)
    assert row_of(summary, "ft", "family")["final_valid"] == pytest.approx(0.73 + 0.00125)
    alone = over_seeds(best_on_validation(sweep.table, by="variant"), by="variant")
    best = alone[alone["variant"].str.startswith("ft")]["final_valid"].max()
    assert row_of(summary, "ft", "family")["final_valid"] >= best


def test_intervals_are_over_seeds(sweep):
    row = row_of(over_seeds(best_on_validation(sweep.table)), "hp-ft")
    interval = mean_interval([noisy(seed, {4: (0.76, 0.63)})[4][1] for seed in SEEDS])
    assert row["seeds"] == 4
    assert (row["final_test_low"], row["final_test_high"]) == (interval.low, interval.high)


def test_methods_are_compared_on_the_same_seeds(sweep):
    table = compare(best_on_validation(sweep.table))
    assert set(table["method"]) == {"hp-ft"}
    against_ft = row_of(table, "ft", "other")
    # the luck of a seed is shared, so the difference is the same on each
    assert against_ft["difference"] == pytest.approx(0.01)
    assert np.isnan([against_ft["difference_low"], against_ft["p"], against_ft["p_holm"]]).all()
    assert against_ft["n"] == 4
    assert against_ft["budgets_equal"]
    assert not row_of(table, "lp", "other")["budgets_equal"]


def test_seeds_that_only_one_method_has_are_left_out_of_the_comparison(tmp_path):
    for seed in (0, 1, 2):
        write_run(tmp_path, {4: (0.8, 0.7)}, seed=seed)
    for seed in (1, 2, 3):
        write_run(tmp_path, {0: (0.7, 0.6)}, method="ft", seed=seed)
    write_run(tmp_path, {0: (0.5, 0.5)}, method="scratch", seed=9)
    table = compare(best_on_validation(read_results(tmp_path).table))
    assert row_of(table, "ft", "other")["n"] == 2
    alone = row_of(table, "scratch", "other")
    assert alone["n"] == 0
    assert np.isnan([alone["difference"], alone["p"], alone["p_holm"]]).all()


def test_one_lucky_seed_does_not_lead(tmp_path):
    for seed in range(4):
        write_run(tmp_path, {4: (0.8, 0.7)}, seed=seed)
    write_run(tmp_path, {0: (0.99, 0.6)}, method="ft", seed=0)
    assert leader(best_on_validation(read_results(tmp_path).table)) == "hp-ft"


def test_scores_over_tau_have_every_tau_and_no_baseline(sweep, tmp_path):
    table = over_tau(sweep.table)
    assert table[table["label"] == "hp-ft"]["tau"].tolist() == [0, 4, 16]
    assert (table["seeds"] == len(SEEDS)).all()
    assert {"energy_low", "distance_high", "final_test_low"} <= set(table.columns)
    write_run(tmp_path, {None: (0.7, 0.6)}, method="morgan_rf")
    assert over_tau(read_results(tmp_path).table).empty


def test_a_tau_that_was_run_twice_counts_once(tmp_path):
    for taus in ((0, 4), (0, 4, 16)):
        write_run(tmp_path, {tau: (0.7 + tau / 100, 0.6) for tau in taus})
    table = read_results(tmp_path).table
    assert over_tau(table)["seeds"].tolist() == [1, 1, 1]
    assert best_on_validation(table)["candidates"].tolist() == [3]


def test_a_score_that_is_missing_is_never_chosen(tmp_path):
    write_run(tmp_path, {0: (float("nan"), 0.9), 4: (0.7, 0.6)})
    (row,) = best_on_validation(read_results(tmp_path).table).to_dict("records")
    assert (row["tau"], row["candidates"]) == (4, 1)


def test_an_unknown_cost_says_nothing_about_budgets(tmp_path):
    path = write_run(tmp_path, {4: (0.8, 0.7)})
    write_run(tmp_path, {0: (0.7, 0.6)}, method="ft")
    (path / "history.jsonl").unlink()
    (row,) = compare(best_on_validation(read_results(tmp_path).table)).to_dict("records")
    assert row["budgets_equal"] is None


TABLES = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3), st.integers(0, 4), SCORE, SCORE),
    min_size=1,
    max_size=25,
    unique_by=lambda row: row[:3],
)


@settings(deadline=None, max_examples=40)
@given(TABLES)
def test_choosing_never_looks_at_test_scores(rows):
    columns = ["label", "seed", "tau", "final_valid", "final_test"]
    table = pd.DataFrame(rows, columns=columns).assign(task="t", metric="rocauc", epochs=1)
    turned = table.assign(final_test=1 - table["final_test"])
    keys = ["label", "seed", "tau", "candidates"]
    best = best_on_validation(table)
    assert best[keys].equals(best_on_validation(turned)[keys])
    for row in best.to_dict("records"):
        own = table[(table["label"] == row["label"]) & (table["seed"] == row["seed"])]
        assert row["final_valid"] == own["final_valid"].max()
        assert row["candidates"] == len(own) == row["search_epochs"]


def test_out_of_distribution_is_beside_in_distribution_and_validation_chooses(tmp_path):
    for seed, luck in enumerate((0.0, 0.02)):
        chosen = {"noise": 0.5 + luck, "blur": 0.7, "calibration": 0.9}
        tempting = {"noise": 0.9, "blur": 0.9, "calibration": 0.9}
        write_run(tmp_path, {0: (0.8, 0.9, chosen), 4: (0.7, 0.9, tempting)}, seed=seed)
        other = {"noise": 0.7, "blur": 0.7, "calibration": 0.9}
        write_run(tmp_path, {0: (0.9, 0.8, other)}, method="lp", seed=seed)
    best = best_on_validation(read_results(tmp_path).table)
    assert shifted_splits(best) == ["noise", "blur"]
    first, second = out_of_distribution(best).to_dict("records")
    assert (first["label"], second["label"], second["seeds"]) == ("lp", "hp-ft", 2)
    assert (first["shifted"], first["loss"]) == pytest.approx((0.7, -0.1))
    assert (second["test"], second["noise"], second["blur"]) == pytest.approx((0.9, 0.51, 0.7))
    assert (second["shifted"], second["loss"]) == pytest.approx((0.605, 0.605 - 0.9))
    # of the means 0.6 and 0.61
    assert second["shifted_low"] == pytest.approx(mean_interval([0.6, 0.61]).low)


def test_where_no_task_has_shifted_splits_there_is_nothing_out_of_distribution(tmp_path):
    write_run(tmp_path, {0: (0.8, 0.9, {"calibration": 0.9})})
    table = out_of_distribution(best_on_validation(read_results(tmp_path).table))
    assert table.empty
    assert list(table.columns)[:2] == ["task", "label"]


def test_a_mean_over_shifted_splits_of_which_one_has_no_score_is_none(tmp_path):
    write_run(tmp_path, {0: (0.8, 0.9, {"noise": 0.5, "blur": None})}, seed=0)
    write_run(tmp_path, {0: (0.8, 0.9, {"noise": 0.5, "blur": 0.7})}, seed=1)
    (row,) = out_of_distribution(best_on_validation(read_results(tmp_path).table)).to_dict(
        "records"
    )
    assert row["shifted"] == pytest.approx(0.6)
