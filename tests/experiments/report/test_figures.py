"""Figures: their points are the numbers of the table, and absence is a sentence."""

from itertools import pairwise

import pytest

from molhpft.experiments.report import figures, measured
from molhpft.experiments.results import read_results
from molhpft.experiments.summaries import over_tau, reported, summarise
from tests.experiments.runs import write_run


@pytest.fixture(scope="module")
def palette(results):
    return figures.colours(summarise(reported(results.table))["label"].tolist())


@pytest.fixture(scope="module")
def found(results):
    return measured.variants(results, results.table)


def points(trace):
    return dict(zip(trace["x"], trace["y"], strict=True))


def test_the_figure_of_methods_has_their_scores_and_intervals(results, palette):
    (made,) = figures.over_methods(results.table, palette).figures
    summary = summarise(reported(results.table)).set_index("label")
    for trace in made["data"]:
        reach = trace["error_x"]["array"]
        for score, label, half in zip(trace["x"], trace["y"], reach, strict=True):
            row = summary.loc[label]
            name = f"final_{trace['name']}"
            assert score == pytest.approx(100 * row[name])
            assert half == pytest.approx(100 * (row[name] - row[f"{name}_low"]))


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
    palette = figures.colours([f"m{k}" for k in range(12)])
    values = list(palette.values())
    assert all(a != b for a, b in pairwise(values))


def test_training_curves_are_means_of_the_histories(results, found):
    panel = measured.curves(found)
    loss, score = panel.figures
    grid = next(runs for name, runs in found if name == "hp-ft")
    for trace in loss["data"]:
        tau = int(trace["name"].removeprefix("tau "))
        for epoch, value in points(trace).items():
            rows = [r for run in grid for r in run.history]
            own = [r["loss"] for r in rows if r.get("tau") == tau and r["epoch"] == epoch]
            assert value == pytest.approx(sum(own) / len(own))
    assert [trace["name"] for trace in score["data"]] == ["tau 0", "tau 1", "tau 4"]


def test_histograms_are_shares_of_all_labels(found):
    for made in measured.confidence(found).figures:
        for trace in made["data"]:
            assert sum(trace["y"][:-1]) == pytest.approx(1)
            assert (trace["x"][0], trace["x"][-1]) == (0, 1)


def test_the_exchange_has_the_means_of_the_matrices(results, found):
    train, valid = measured.exchange(found).figures
    grid = next(runs for name, runs in found if name == "hp-ft")
    for made, split in ((train, "train"), (valid, "valid")):
        matrices = [run.summary["measures"]["exchange"][split] for run in grid]
        for i in range(3):
            for j in range(3):
                mean = sum(m[i][j] for m in matrices) / len(matrices)
                assert made["data"][0]["z"][i][j] == pytest.approx(100 * mean)


def test_the_kernel_is_drawn_along_finetuning(found):
    panel = measured.ntk(found)
    assert panel.note.startswith("ft, lr=0.003: ")
    (made,) = panel.figures
    assert list(made["data"][0]["x"]) == [1, 2]


def test_every_target_has_its_score(results, palette):
    (made,) = measured.per_target(results, results.table, palette).figures
    assert {trace["name"] for trace in made["data"]} == {"hp-ft", "morgan-lr"}
    best = reported(results.table)
    for trace in made["data"]:
        assert set(trace["y"]) == {"ring", "<b>odd|</b>"}
        own = best[best["label"] == trace["name"]]["final_test"].mean()
        assert sum(trace["x"]) / 2 == pytest.approx(100 * own)


def test_figures_that_were_not_measured_are_sentences(tmp_path):
    write_run(tmp_path, {4: (0.6, 0.5)}, method="lp", epochs=0)
    results = read_results(tmp_path)
    found = measured.variants(results, results.table)
    palette = figures.colours(["lp"])
    panels = [
        *figures.over_taus(results.table, palette),
        *(make(found) for make in (measured.curves, measured.confidence, measured.exchange)),
        measured.ntk(found),
        measured.per_target(results, results.table, palette),
    ]
    assert all(panel.figures == () for panel in panels)
    assert all(panel.note.endswith((".", "config.")) for panel in panels)
