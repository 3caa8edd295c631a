"""Conclusions that say what the numbers say and no more, and tables that agree with them."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from molhpft.report.text import comparisons, conclusions, problems_table, tables
from molhpft.results.statistics import best_on_validation, over_seeds
from molhpft.results.table import read_results
from tests.runs import write_run

LUCK = (0.01, -0.012, 0.004, -0.002, 0.0)


def tree(root, methods, seeds=5):
    """Runs with the same luck for all methods and a little of their own."""
    for k, (method, scores) in enumerate(methods.items()):
        for seed in range(seeds):
            own = 0.0005 * ((seed * (k + 2)) % 5 - 2)
            shifted = {t: (v + LUCK[seed], s + LUCK[seed] + own) for t, (v, s) in scores.items()}
            write_run(root, shifted, method=method, seed=seed)
    table = read_results(root).table
    return table, best_on_validation(table)


def test_verdicts_follow_the_corrected_tests(tmp_path):
    scores = {
        "hp_ft": {0: (0.70, 0.60), 4: (0.80, 0.70)},
        "ft": {0: (0.75, 0.65)},
        "lp": {4: (0.74, 0.7001)},
        "l2_sp": {4: (0.73, 0.76)},
    }
    table, best = tree(tmp_path, scores)
    text = " ".join(conclusions(table, best))
    assert text.startswith("hp-ft validates best: test ROC-AUC (%) 70.00 (95 % interval")
    assert "over 5 seeds, with tau 4 chosen." in text
    assert re.search(r"Better on test than ft \+(4\.9|5\.)", text)
    assert re.search(r"Worse on test than l2-sp -(5\.9|6\.)", text)
    assert re.search(r"No significant difference on test: lp [+-]0\.0", text)
    assert "n = 5 unless given" in text
    assert "corrected for 3 comparisons (Holm)" in text
    assert "changes the test score of hp-ft by +10.00 on every seed against tau 0." in text
    assert "against tau 4" not in text
    p = {row["other"]: row["p_holm"] for row in comparisons(best).to_dict("records")}
    assert max(p["ft"], p["l2-sp"]) < 0.05 < p["lp"]


def test_one_seed_is_tested_by_nothing(tmp_path):
    methods = {"hp_ft": {0: (0.7, 0.7)}, "ft": {0: (0.6, 0.6)}, "lp": {0: (0.5, 0.5)}}
    text = " ".join(conclusions(*tree(tmp_path, methods, seeds=1)))
    assert "which needs several seeds; difference on test: ft +10.00 and lp +20.00." in text
    assert "significant" not in text
    assert "t-test" not in text


def test_a_difference_that_is_the_same_on_every_seed_is_no_evidence(tmp_path):
    for seed in range(3):
        write_run(tmp_path, {0: (0.7, 0.6 + LUCK[seed])}, method="ft", seed=seed)
        write_run(tmp_path, {0: (0.65, 0.6 + LUCK[seed])}, method="lp", seed=seed)
        write_run(tmp_path, {0: (0.6, 0.4 + LUCK[seed])}, method="layerwise", seed=seed)
        write_run(tmp_path, {0: (0.6, 0.5)}, method="l2_sp", seed=seed)
    table = read_results(tmp_path).table
    best = best_on_validation(table)
    text = " ".join(conclusions(table, best))
    assert "Not told apart by a test, which needs differences that vary" in text
    assert "on test: layerwise +20.00 on every seed." in text
    assert "No significant difference on test: lp +0.00 on every seed." in text
    assert re.search(r"Better on test than l2-sp \+10\.07 \[", text)
    assert "corrected for 2 comparisons (Holm)" in text
    (_, compared) = tables(table)
    (row,) = [row for row in compared.rows if row[0].text == "layerwise"]
    assert [cell.text for cell in row[1:5]] == ["20.00", "3", "-", "-"]


def test_a_score_that_is_the_same_on_every_seed_has_no_interval(tmp_path):
    table, best = tree(tmp_path, {"ft": {0: (0.7, 0.6)}}, seeds=3)
    same = best.assign(final_test=-1.09, metric="neg_rmse")
    (first, *_) = conclusions(table, same)
    assert first.endswith("test -RMSE -1.0900 (the same on every seed) over 3 seeds.")


def test_a_seed_without_a_test_score_is_not_counted_with_the_mean(tmp_path):
    table, best = tree(tmp_path, {"ft": {0: (0.7, 0.6)}}, seeds=3)
    best.loc[0, "final_test"] = float("nan")
    assert conclusions(table, best)[0].endswith(" over 2 of 3 seeds.")


def test_of_many_others_the_nearest_are_named_and_the_rest_counted(tmp_path):
    methods = {"hp_ft": {0: (0.9, 0.9)}}
    # of the fifth the difference is the same on every seed
    worse = ("ft", "lp", "l2_sp", "wise_ft", "layerwise", "lp_ft")
    methods |= {name: {0: (0.8, 0.8 - 0.02 * k)} for k, name in enumerate(worse)}
    table, best = tree(tmp_path, methods)
    (verdict,) = [line for line in conclusions(table, best) if line.startswith("Better")]
    places = [verdict.index(name) for name in ("ft +10", "lp +12", "l2-sp +14", "wise-ft +16")]
    assert places == sorted(places)
    assert verdict.endswith("and 1 more.")
    assert "lp-ft" not in verdict


def test_a_baseline_is_compared_with_and_never_leads(tmp_path):
    table, _ = tree(tmp_path, {"ft": {0: (0.7, 0.6)}})
    both = _with_baselines(table, forest_counts=(0.99, 0.9))
    text = " ".join(conclusions(both, best_on_validation(both)))
    assert text.startswith("ft validates best among networks")
    assert "forest-counts -30.00" in text


def _with_baselines(table, **scores):
    """A table and baselines with the same seeds: name to validation and test score."""
    rows = [
        table.assign(
            **dict.fromkeys(("label", "variant", "family"), name.replace("_", "-")),
            **{"method": name, "head": None, "tau": None},
            **{"final_valid": valid, "final_test": test},
        )
        for name, (valid, test) in scores.items()
    ]
    return pd.concat([table, *rows], ignore_index=True)


def test_only_the_baseline_that_validates_best_is_compared_with(tmp_path):
    table, _ = tree(tmp_path, {"ft": {0: (0.7, 0.6)}, "lp": {0: (0.6, 0.5)}})
    scores = {"forest_counts": (0.68, 0.5), "svm_counts": (0.69, 0.4), "linear_bits": (0.5, 0.9)}
    best = best_on_validation(_with_baselines(table, **scores))
    assert set(comparisons(best)["other"]) == {"lp", "svm-counts"}


@pytest.mark.parametrize(("valid", "as_good"), [(0.99, True), (0.01, False)])
def test_a_baseline_that_validates_at_least_as_well_as_every_network_is_said_to(
    tmp_path, valid, as_good
):
    table, _ = tree(tmp_path, {"ft": {0: (0.7, 0.6)}})
    both = _with_baselines(table, forest_counts=(valid, 0.9))
    text = " ".join(conclusions(both, best_on_validation(both)))
    assert "The strongest baseline by validation is forest-counts: test ROC-AUC (%) 90.00" in text
    assert ("validates at least as well as every network" in text) is as_good


@pytest.mark.parametrize(("seeds", "words"), [(1, "With 1 seed"), (2, "With 2 seeds")])
def test_few_seeds_are_called_preliminary(tmp_path, seeds, words):
    table, best = tree(tmp_path, {"ft": {0: (0.7, 0.6)}, "lp": {4: (0.6, 0.5)}}, seeds=seeds)
    sentences = conclusions(table, best)
    assert sentences[-1].startswith(f"{words} this is preliminary")
    assert not any(sentence.startswith("Better") for sentence in sentences) or seeds > 1


def test_methods_without_a_shared_seed_are_not_compared(tmp_path):
    write_run(tmp_path, {0: (0.7, 0.6)}, method="ft", seed=1)
    write_run(tmp_path, {4: (0.6, 0.5)}, method="lp", seed=2)
    table = read_results(tmp_path).table
    sentences = conclusions(table, best_on_validation(table))
    assert "Not compared, because no seed is shared: lp." in sentences
    assert not any("paired" in sentence for sentence in sentences)


def test_fewer_shared_seeds_stand_beside_the_difference(tmp_path):
    for seed in range(4):
        write_run(tmp_path, {0: (0.7, 0.6 + seed / 100)}, method="ft", seed=seed)
    for seed in range(2, 5):
        write_run(tmp_path, {4: (0.6, 0.5)}, method="lp", seed=seed)
    table = read_results(tmp_path).table
    text = " ".join(conclusions(table, best_on_validation(table)))
    assert re.search(r"lp \+12\.50 \[.*\] \(n = 2\)", text)


def test_numbers_without_percent_have_their_own_digits(tmp_path):
    write_run(tmp_path, {0: (-1.5, -1.25)}, method="ft")
    table = read_results(tmp_path).table.assign(metric="neg_rmse")
    assert "test -RMSE -1.2500 over 1 seed." in conclusions(table, best_on_validation(table))[0]


def test_every_row_of_every_table_is_as_long_as_its_head(results):
    made = [*tables(results.table), problems_table(results)]
    assert [table.title for table in made] == [
        "Methods at their best",
        f"{made[1].title.split(' ')[0]} against the others",
        "Every setting",
        "Every tau",
        "Left out",
    ]
    for table in made:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert table.note


def test_the_first_table_shows_the_means(results):
    first = tables(results.table)[0]
    summary = over_seeds(best_on_validation(results.table))
    assert [row[0].text for row in first.rows] == summary["label"].tolist()
    assert [row[1].value for row in first.rows] == summary["final_test"].tolist()
    marked = first.rows[first.marked][0].text
    assert marked == "hp-ft"


def test_nothing_left_out_is_no_table(results):
    assert problems_table(replace(results, problems=())) is None


def test_shifted_splits_have_a_table_beside_the_test_split_and_others_none(tmp_path):
    for seed in range(3):
        write_run(tmp_path / "a", {0: (0.8, 0.9, {"noise": 0.5, "blur": 0.7})}, seed=seed)
        write_run(tmp_path / "b", {0: (0.8, 0.9, {"ood": 0.6})}, seed=seed)
        write_run(tmp_path / "c", {0: (0.8, 0.9)}, seed=seed)

    def shown(name):
        made = tables(read_results(tmp_path / name).table)
        return next((table for table in made if table.title.startswith("In and out")), None)

    several = shown("a")
    assert several.columns == ("method", "test", "shifted", "loss", "noise", "blur", "seeds")
    cells = [cell.text.split(" ±")[0] for cell in several.rows[0]]
    assert cells == ["hp-ft", "90.00", "60.00", "-30.00", "50.00", "70.00", "3"]
    assert "noise, blur are not. shifted: mean over the others; loss: shifted minus" in several.note
    assert shown("b").columns == ("method", "test", "loss", "ood", "seeds")
    assert "ood is not. loss: ood minus test" in shown("b").note
    assert shown("c") is None
