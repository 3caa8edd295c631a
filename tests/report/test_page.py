"""A report: whole, self-contained, the same each time, its molecules those that stand out."""

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.schema import parse_config
from molhpft.domains.weights import read_weights
from molhpft.report.figures import task_variants
from molhpft.report.page import galleries, write_report
from molhpft.results.read import read_runs
from molhpft.results.statistics import best_on_validation
from molhpft.run.run import snapshots
from molhpft.run.standouts import SHOWN
from tests.runs import rewrite, write_run

TABLES = (
    *("rows", "methods", "equal_budget", "settings", "comparisons", "tau", "problems", "shifted"),
)


@pytest.fixture(scope="module")
def report(tree, tmp_path_factory):
    return write_report(tree, tmp_path_factory.mktemp("out") / "report")


@pytest.fixture(scope="module")
def html(report):
    return report.page.read_text()


def body_of(html):
    """The page without plotly's script."""
    return html[: html.index('<script type="application/json"')]


class Outline(HTMLParser):
    """Start tags with their attributes, and text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)


def test_every_file_is_there(report):
    names = {path.name for path in [report.page, *report.files]}
    assert names == {"report.html", "report.md", *(f"{name}.csv" for name in TABLES)}
    assert {path.name for path in report.page.parent.iterdir()} == names


def test_the_page_needs_nothing_but_itself(html):
    for tag, attributes in Outline(body_of(html)).tags:
        assert "src" not in attributes, tag
        assert attributes.get("href", "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in html[: html.index("</style>")]
    assert "default-src 'none'" in html


def test_names_of_people_are_text_and_no_markup(html):
    assert "<b>odd" not in body_of(html)
    figures = html[html.index('id="figures">') : html.index("</script>")]
    assert "<" not in figures.removeprefix('id="figures">')
    assert "<b>odd|" in json.dumps(json.loads(figures.removeprefix('id="figures">')))
    assert "rings" in html


def test_every_figure_has_a_place_and_every_place_a_figure(html):
    data = re.search(r'id="figures">(.*?)</script>', html, re.S).group(1)
    places = [a["id"] for t, a in Outline(body_of(html)).tags if a.get("class") == "figure"]
    assert places == [f"figure-{k}" for k in range(len(json.loads(data)))]


def test_conclusions_come_first_and_say_how_sure_they_are(html, report):
    (sentences,) = report.conclusions.values()
    words = body_of(html)
    assert words.index(sentences[0]) < words.index("<table>")
    assert "validates best among networks: test ROC-AUC (%)" in sentences[0]
    assert "over 2 seeds" in sentences[0]
    assert any("run more for reliable intervals" in sentence for sentence in sentences)


def test_what_could_not_be_read_is_listed(html, report):
    assert len(report.problems) == 2
    text = " ".join(Outline(body_of(html)).words)
    assert "killed.partial" in text
    assert "summary.json is damaged" in text


def test_every_figure_that_was_asked_for_is_there(html):
    text = body_of(html)
    titles = re.findall(r'<section class="(?:panel|gallery)">\s*<h3>(.*?)</h3>', text)
    assert titles == [
        "Methods at their best",
        "Score against tau",
        "Energy against tau",
        "How far features move",
        "Training curves",
        "p(correct)",
        "Heads and backbones exchanged",
        "Direction term",
        "eNTK change",
        "A, K and G of the first step",
        "Drift by batch norm",
        "Proposition 1",
        "Score of every target",
        "Features that moved most",
        "Energy that stayed highest",
    ]
    assert text.count("<figure>") == 12
    assert text.count("<svg") == 12


def test_a_figure_that_was_not_measured_says_so(tmp_path):
    for seed in range(2):
        write_run(tmp_path / "runs", {0: (0.6, 0.5)}, method="ft", seed=seed)
    text = body_of(write_report(tmp_path / "runs", tmp_path / "out").page.read_text())
    further = ("direction", "ntk", "decomposition", "drift", "bound")
    for name in ("confidence", "exchange", "targets", *further):
        assert f"add {name} to measures in the config" in text
    assert text.count("give method.tau a list") == 3
    assert text.count("it stored no molecules to draw; set features: true") == 2


def test_csv_tables_hold_what_the_results_hold(report, results):
    rows = pd.read_csv(report.page.with_name("rows.csv"))
    assert len(rows) == len(results.table)
    assert rows["final_test"].tolist() == pytest.approx(results.table["final_test"].tolist())
    assert not rows["folder"].str.startswith("/").any()
    methods = pd.read_csv(report.page.with_name("methods.csv")).set_index("label")
    best = best_on_validation(results.table).groupby("label")["final_test"].mean()
    for label, mean in best.items():
        assert methods.loc[label, "final_test"] == pytest.approx(mean)


def test_markdown_tables_are_whole(report):
    lines = report.page.with_name("report.md").read_text().splitlines()
    assert sum(line.startswith("|---") for line in lines) == sum("### " in line for line in lines)
    for line, following in pairwise(lines):
        if line.startswith("|") and following.startswith("|"):
            bars = [re.sub(r"\\.", "", row).count("|") for row in (line, following)]
            assert bars[0] == bars[1]


def test_the_same_folders_give_the_same_bytes_without_their_data_and_are_left_alone(
    tree, report, tmp_path
):
    before = {p: p.stat().st_mtime_ns for p in tree.rglob("*")}
    table = tree.parent / "rings.csv"
    table.rename(tmp_path / "away.csv")
    try:
        again = write_report(tree, tmp_path / "again")
    finally:
        (tmp_path / "away.csv").rename(table)
    for path in [report.page, *report.files]:
        assert again.page.with_name(path.name).read_bytes() == path.read_bytes(), path.name
    assert {p: p.stat().st_mtime_ns for p in tree.rglob("*")} == before


def test_a_contradiction_is_a_note_on_the_page_and_in_the_text(tmp_path):
    for k, score in (("a", 0.5), ("b", 0.52)):
        write_run(tmp_path / "runs" / k, {0: (0.6, score)}, method="ft")
    report = write_report(tmp_path / "runs", tmp_path / "out")
    (note,) = report.notes
    assert "contradict each other (test: 0.52 and 0.5)" in note
    assert note in body_of(report.page.read_text())


def test_a_run_that_is_damaged_later_only_loses_itself(tree, tmp_path):
    copy = tmp_path / "runs"
    shutil.copytree(tree, copy)
    run = next(p for p in sorted(copy.iterdir()) if "-lp-" in p.name)
    (run / "config.yaml").write_text("task: [")
    assert len(write_report(copy, tmp_path / "out").problems) == 3


def test_a_place_that_cannot_be_written_is_an_error(tree, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_report(tree, tmp_path / "file" / "report")


def test_without_validation_scores_nothing_is_chosen(tmp_path):
    nan = float("nan")
    write_run(tmp_path / "runs", {0: (nan, 0.5)}, method="ft")
    report = write_report(tmp_path / "runs", tmp_path / "out")
    assert "nothing can be chosen" in report.conclusions["rings"][0]


@pytest.fixture
def copied(tree, tmp_path):
    """The first run with features, alone, for a test to damage."""
    source = next(p for p in sorted(tree.iterdir()) if (p / "features.npz").is_file())
    shutil.copytree(source, tmp_path / source.name)
    return tmp_path / source.name


def shown(path):
    runs, _ = read_runs(path.parent)
    return galleries([("hp-ft", runs)])


def reference(path):
    """Distance and energy of every training molecule, by running the saved network anew."""
    (run,), _ = read_runs(path.parent)
    config = parse_config(run.config)
    recipe = build_recipes(config)[0]
    task = build_task(config, recipe)
    network = build_network(config, task, recipe)
    network.load_state_dict(read_weights(path / "model.safetensors").tensors)
    after = snapshots(network, task)["train"]
    with np.load(path / "features.npz") as arrays:
        before = torch.from_numpy(arrays["train_before"])
    smiles = [task.examples.smiles[row] for row in task.rows("train").tolist()]
    moved = (after.features - before).norm(dim=1)
    energy = task.objective.residual(after.logits, after.targets).norm(dim=1)
    return smiles, moved, energy


def test_molecules_are_those_that_moved_most_and_kept_most_energy(copied):
    smiles, moved, energy = reference(copied)
    for gallery, values in zip(shown(copied), (moved, energy), strict=True):
        assert len(gallery.pictures) == SHOWN
        assert all(picture.svg.startswith("<svg") for picture in gallery.pictures)
        own = [values[smiles.index(picture.smiles)].item() for picture in gallery.pictures]
        top = values.sort(descending=True).values[:SHOWN].tolist()
        assert own == pytest.approx(top, rel=1e-4)


def test_captions_tell_the_numbers_and_the_worst_target(copied):
    smiles, moved, energy = reference(copied)
    for picture in shown(copied)[1].pictures:
        row = smiles.index(picture.smiles)
        assert picture.lines[0] == f"moved {moved[row]:.2f}, energy {energy[row]:.2f}"
        name, rest = picture.lines[1].rsplit(": ", 1)
        assert name in ("ring", "<b>odd|</b>")
        label, predicted = (float(word.split()[-1]) for word in rest.split(", "))
        assert abs(label - predicted) <= energy[row] + 0.006


def test_molecules_are_shown_without_data_and_weights(copied):
    before = shown(copied)
    for name in ("config.yaml", "summary.json"):
        text = (copied / name).read_text()
        rewrite(copied, name, text.replace("rings.csv", "gone.csv"))
    for name in ("features.npz", "model.safetensors"):
        (copied / name).unlink()
    assert shown(copied) == before


def without_standouts(path):
    """As a run leaves its folder whose task has no molecules."""
    path.unlink()
    rewrite(path.parent, "summary.json", (path.parent / "summary.json").read_text())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_standouts, "its task has no molecules"),
        (lambda path: path.unlink(), "molecules.json is missing"),
        (lambda path: rewrite(path.parent, path.name, "{"), "molecules.json is damaged"),
        (lambda path: path.write_text("{"), "molecules.json should have the size"),
    ],
    ids=["none", "absent", "damaged", "cut"],
)
def test_what_is_missing_is_a_sentence(copied, damage, words):
    damage(copied / "molecules.json")
    for gallery in shown(copied):
        assert gallery.pictures == ()
        assert gallery.note.startswith("No molecules to show: ")
        assert words in gallery.note


def test_the_best_variant_with_features_is_shown(results):
    first, _ = galleries(task_variants(results, results.table))
    assert first.note.startswith("Training molecules of hp-ft, seed ")
