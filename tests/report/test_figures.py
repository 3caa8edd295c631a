"""Figures: their points are the numbers of the table, and absence is a sentence."""

import json
from itertools import pairwise
from math import isnan

import pytest

from molhpft.report import figures
from molhpft.report.plots import colours
from molhpft.results.statistics import best_on_validation, over_seeds, over_tau
from molhpft.results.table import read_results
from tests.runs import SHIFT, measure, rewrite, write_run


@pytest.fixture(scope="module")
def palette(results):
    return colours(over_seeds(best_on_validation(results.table))["label"].tolist())


@pytest.fixture(scope="module")
def variants(results):
    return figures.task_variants(results, results.table)


def points(trace):
    return dict(zip(trace["x"], trace["y"], strict=True))


def test_the_figure_of_methods_has_their_scores_and_intervals(results, palette):
    (made,) = figures.over_methods(results.table, palette).figures
    summary = over_seeds(best_on_validation(results.table)).set_index("label")
    for trace in made["data"]:
        reach = trace["error_x"]["array"]
        for score, label, half in zip(trace["x"], trace["y"], reach, strict=True):
            row = summary.loc[label]
            name = f"final_{trace['name']}"
            assert score == pytest.approx(100 * row[name])
            low = row[f"{name}_low"]
            if isnan(low):  # of seeds that agree
                assert half == "none"
            else:
                assert half == pytest.approx(100 * (row[name] - low))


def test_figures_over_tau_have_the_means(results, palette):
    score, energy, distances = figures.over_taus(results.table, palette)
    table = over_tau(results.table)
    grid = table[table["label"] == "hp-ft"].set_index("tau")
    assert points(score.figures[0]["data"][0]) == pytest.approx(
        {str(tau): 100 * value for tau, value in grid["final_test"].items()}
    )
    assert points(energy.figures[0]["data"][0]) == pytest.approx(
        {str(tau): value for tau, value in grid["energy"].items()}
    )
    assert len(distances.figures) == 4
    for made, key in zip(distances.figures, figures.DISTANCES, strict=True):
        assert list(made["data"][0]["y"]) == pytest.approx(grid[key].tolist())
        assert made["layout"]["xaxis"]["categoryarray"] == ["0", "1", "4"]


def test_of_several_settings_the_one_that_validates_best_is_drawn(tmp_path):
    for lr, valid in ((0.1, 0.6), (0.2, 0.8), (0.3, 0.7)):
        scores = {0: (valid, 0.5), 4: (valid + 0.01, 0.5)}
        write_run(tmp_path, scores, finetune={"lr": lr})
    best = figures.best_variants(read_results(tmp_path).table)
    assert set(best["variant"]) == {"hp-ft, lr=0.2"}


def test_methods_keep_their_colour_and_neighbours_differ():
    palette = colours([f"m{k}" for k in range(12)])
    values = list(palette.values())
    assert all(a != b for a, b in pairwise(values))


def test_training_curves_are_means_of_the_histories(results, variants):
    panel = figures.training_curves(variants)
    loss, score = panel.figures
    grid = next(runs for name, runs in variants if name == "hp-ft")
    for trace in loss["data"]:
        tau = int(trace["name"].removeprefix("tau "))
        for epoch, value in points(trace).items():
            rows = [r for run in grid for r in run.history]
            own = [r["loss"] for r in rows if r.get("tau") == tau and r["epoch"] == epoch]
            assert value == pytest.approx(sum(own) / len(own))
    assert [trace["name"] for trace in score["data"]] == ["tau 0", "tau 1", "tau 4"]


def test_histograms_are_shares_of_all_labels(variants):
    for made in figures.confidence(variants).figures:
        for trace in made["data"]:
            assert sum(trace["y"][:-1]) == pytest.approx(1)
            assert (trace["x"][0], trace["x"][-1]) == (0, 1)


def test_the_exchange_has_the_means_of_the_matrices(results, variants):
    train, valid = figures.exchange(variants).figures
    grid = next(runs for name, runs in variants if name == "hp-ft")
    for made, split in ((train, "train"), (valid, "valid")):
        matrices = [run.summary["measures"]["exchange"][split] for run in grid]
        for i in range(3):
            for j in range(3):
                mean = sum(m[i][j] for m in matrices) / len(matrices)
                assert made["data"][0]["z"][j][i] == pytest.approx(100 * mean)


def panels(root):
    """Figures of further measures by title, as the report draws them."""
    results = read_results(root)
    table = results.table
    variants = figures.task_variants(results, table)
    palette = colours(sorted(set(table["label"])))
    labels = dict(zip(table["variant"], table["label"], strict=True))
    drawn = (
        figures.ntk(variants, labels, palette),
        *(draw(variants) for draw in (figures.direction, figures.first_step)),
        *(draw(variants) for draw in (figures.drift, figures.bound)),
    )
    return {panel.title: panel for panel in drawn}, figures.measures_table(variants)


def lines_of(made):
    return {trace["name"]: points(trace) for trace in made["data"]}


def test_kernels_of_a_random_and_a_pretrained_backbone_are_on_one_plot_at_one_tau(tmp_path):
    pretrained = [{"ntk_change": 0.1 * k, "ntk_step": 0.1} for k in (1, 2, 3)]
    random = [{"ntk_change": 0.5 * k, "ntk_step": 0.4} for k in (1, 2, 3)]
    grid = write_run(tmp_path, {0: (0.6, 0.5), 4: (0.7, 0.6)})
    measure(grid, {}, {0: pretrained, 4: [{"ntk_change": 9.0, "ntk_step": 9.0}] * 3})
    measure(write_run(tmp_path, {0: (0.5, 0.4)}, method="scratch"), {}, {0: random})
    panel = panels(tmp_path)[0]["eNTK change"]
    start, step = map(lines_of, panel.figures)
    for label, rows in (("hp-ft", pretrained), ("scratch", random)):
        assert list(start[label].items()) == [(k + 1, r["ntk_change"]) for k, r in enumerate(rows)]
        assert list(step[label].values()) == [row["ntk_step"] for row in rows]
    assert "tau 0: hp-ft and scratch" in panel.note


def test_the_kernel_of_one_method_has_a_line_a_tau(tmp_path):
    along = {tau: [{"ntk_change": tau + k} for k in range(3)] for tau in (0, 4)}
    measure(write_run(tmp_path, {0: (0.6, 0.5), 4: (0.7, 0.6)}), {}, along)
    (made,) = panels(tmp_path)[0]["eNTK change"].figures
    assert lines_of(made) == {f"tau {t}": {1: t, 2: t + 1, 3: t + 2} for t in (0, 4)}


def test_the_direction_term_is_drawn_from_its_start(tmp_path):
    along = {tau: [{"direction": 1.0 + k} for k in range(3)] for tau in (0, 4)}
    before = {tau: {"direction": {"norm_before": tau / 10}} for tau in (0, 4)}
    measure(write_run(tmp_path, {0: (0.6, 0.5), 4: (0.7, 0.6)}), before, along)
    (made,) = panels(tmp_path)[0]["Direction term"].figures
    assert lines_of(made)["tau 4"] == {0: 0.4, 1: 1.0, 2: 2.0, 3: 3.0}


def further(tau, *, beyond=()):
    return {
        "decomposition": {"A": 0.5, "K": 4.0, "G": 1 / (1 + tau), "K_z": 3.0, "W": 2.0, "lr": 1e-4},
        "drift": {"distance": 0.25, "cosine": None},
        "bound": {"distance": 1.0, "most": 10.0, "applies": not beyond, "beyond": list(beyond)},
    }


def test_measures_of_branches_are_drawn_against_tau_and_tabled(tmp_path):
    for seed in (0, 1):
        run = write_run(tmp_path, {0: (0.6, 0.5), 4: (0.7, 0.6)}, seed=seed)
        measure(run, {tau: further(tau, beyond=["momentum 0.9"] * seed) for tau in (0, 4)})
    drawn, table = panels(tmp_path)
    step, drift, bound = (
        lines_of(drawn[title].figures[0])
        for title in (
            "A, K and G of the first step",
            "Drift by batch norm",
            "Proposition 1",
        )
    )
    assert step == {
        **{factor: {"0": 1, "4": 1} for factor in ("A", "K", "K_z", "W")},
        "G": {"0": 1, "4": pytest.approx(0.2)},
    }
    assert drift == {"all of it": {"0": 1, "4": 1}, "by batch norm alone": {"0": 0.25, "4": 0.25}}
    assert bound == {"moved": {"0": 1, "4": 1}, "at most, by the bound": {"0": 10, "4": 10}}
    assert "it is not derived for momentum 0.9" in drawn["Proposition 1"].note
    assert table.columns == ("measure", "method", "tau 0", "tau 4")
    cells = {row[0].text: [cell.value for cell in row[2:]] for row in table.rows}
    assert cells["step: G"] == [1, pytest.approx(0.2)]
    assert cells["bound applies"] == [0.5, 0.5]
    assert "alignment" not in cells


GRID = {0: (0.6, 0.5), 4: (0.7, 0.6)}


def changed(path, change):
    """A run of whose summary every branch has been changed."""
    summary = json.loads((path / "summary.json").read_text())
    for branch in summary["branches"]:
        branch |= change
    rewrite(path, "summary.json", json.dumps(summary))
    return path


def shortened(path, epochs):
    """A run whose finetuning stopped early."""
    rows = [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["phase"] == "probe" or row["epoch"] <= epochs]
    rewrite(path, "history.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
    return path


def test_lines_of_one_figure_are_means_over_the_same_seeds_which_the_caption_counts(tmp_path):
    runs = [write_run(tmp_path, GRID, seed=seed) for seed in range(3)]
    measure(runs[0], {tau: further(tau) for tau in GRID})
    for path in runs[1:]:
        changed(path, {"shift": {**SHIFT, "distance": 0.1}})
    drawn, _ = panels(tmp_path)
    (made,) = drawn["Drift by batch norm"].figures
    assert lines_of(made)["all of it"] == {"0": 1, "4": 1}
    for title in ("Drift by batch norm", "Proposition 1", "A, K and G of the first step"):
        assert drawn[title].note.endswith("Mean over 1 seed.")


def test_the_note_under_proposition_1_has_reasons_of_what_is_drawn_alone(tmp_path):
    measure(write_run(tmp_path, GRID), {tau: further(tau) for tau in GRID})
    other = write_run(tmp_path, {0: (0.5, 0.4)}, method="ft")
    measure(other, {0: further(0, beyond=["momentum 0.9"])})
    drawn, _ = panels(tmp_path)
    assert "momentum" not in drawn["Proposition 1"].note


def test_a_mean_curve_ends_where_the_first_seed_stops(tmp_path):
    for seed in range(2):
        shortened(write_run(tmp_path, GRID, seed=seed), 3 - seed)
    results = read_results(tmp_path)
    panel = figures.training_curves(figures.task_variants(results, results.table))
    for made in panel.figures:
        assert [list(line) for line in lines_of(made).values()] == [[1, 2], [1, 2]]
    assert panel.note.endswith("mean over 2 seeds, up to the last epoch that all of them reach.")


def test_captions_count_the_seeds_that_are_drawn(tmp_path):
    counts = {"histogram": {"before": [2, 1], "after": [1, 2]}}
    runs = [write_run(tmp_path, GRID, seed=seed) for seed in range(3)]
    along = {tau: [{"direction": 1.0}] * 3 for tau in GRID}
    measure(runs[0], {tau: {"confidence": counts} for tau in GRID}, along)
    (runs[1] / "history.jsonl").write_text("{")
    results = read_results(tmp_path)
    variants = figures.task_variants(results, results.table)
    assert "mean over 2 seeds." in figures.training_curves(variants).note
    assert "mean over 1 seed." in figures.direction(variants).note
    assert "mean over 1 seed." in figures.confidence(variants).note


def test_a_tau_that_some_seeds_have_is_over_fewer(tmp_path):
    write_run(tmp_path, GRID, seed=0)
    write_run(tmp_path, {0: (0.6, 0.5)}, seed=1)
    results = read_results(tmp_path)
    panel = figures.training_curves(figures.task_variants(results, results.table))
    assert "mean over 1 to 2 seeds." in panel.note


def test_a_solved_head_has_no_tau_in_figures_and_tables(tmp_path):
    kernel = [{"ntk_change": 0.1 * k} for k in (1, 2, 3)]
    solved = write_run(tmp_path, {None: (0.5, 0.4)}, method="lp_ft_converged")
    measure(changed(solved, {"inverse_penalty": 0.1}), {None: further(0)}, {None: kernel})
    alone, table = panels(tmp_path)
    assert lines_of(alone["eNTK change"].figures[0]) == {
        "no tau": {k + 1: row["ntk_change"] for k, row in enumerate(kernel)}
    }
    assert "Measured without a tau" in alone["Drift by batch norm"].note
    assert table.columns == ("measure", "method", "no tau")
    measure(write_run(tmp_path, GRID), {}, {t: kernel for t in GRID})
    beside, _ = panels(tmp_path)
    (made,) = beside["eNTK change"].figures
    assert lines_of(made).keys() == {"hp-ft", "lp-ft-converged"}
    assert "tau 0: hp-ft and lp-ft-converged (no tau), means over 1 seed." in (
        beside["eNTK change"].note
    )
    assert set(over_tau(read_results(tmp_path).table)["label"]) == {"hp-ft"}


def test_measures_at_one_tau_are_tabled_and_what_is_missing_is_named(tmp_path):
    run = write_run(tmp_path, {0: (0.6, 0.5)}, method="ft")
    measure(run, {0: {"drift": {"distance": 0.25}}})
    drawn, table = panels(tmp_path)
    assert drawn["Drift by batch norm"].figures == ()
    assert "Measured at one tau" in drawn["Drift by batch norm"].note
    assert "add bound to measures in the config" in drawn["Proposition 1"].note
    assert [[cell.text for cell in row] for row in table.rows] == [["drift", "ft", "0.25"]]


def test_every_target_has_its_score(results, palette):
    (made,) = figures.per_target(results, results.table, palette).figures
    assert {trace["name"] for trace in made["data"]} == {"hp-ft", "linear-bits"}
    best = best_on_validation(results.table)
    for trace in made["data"]:
        assert set(trace["y"]) == {"ring", "<b>odd|</b>"}
        own = best[best["label"] == trace["name"]]["final_test"].mean()
        assert sum(trace["x"]) / 2 == pytest.approx(100 * own)


def test_without_finetuning_there_are_no_training_curves(tmp_path):
    write_run(tmp_path, {4: (0.6, 0.5)}, method="lp", epochs=0)
    results = read_results(tmp_path)
    panel = figures.training_curves(figures.task_variants(results, results.table))
    assert (panel.note, panel.figures) == ("No run here has finetuned.", ())
