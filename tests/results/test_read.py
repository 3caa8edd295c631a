"""Reading run folders: whole ones are read, all others are named, and nothing stops the rest."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molhpft.results.read import read_runs, read_standouts
from molhpft.run.identity import FORMAT
from tests.runs import rewrite, write_run

FILES = ("summary.json", "config.yaml", "history.jsonl")


@pytest.fixture
def tree(tmp_path):
    """A good run, and another beside it for a test to damage."""
    good = write_run(tmp_path / "sweep", {0: (0.6, 0.5), 4: (0.7, 0.6)}, seed=0)
    bad = write_run(tmp_path / "sweep", {0: (0.6, 0.5), 4: (0.7, 0.6)}, seed=1)
    return tmp_path, good, bad


def test_runs_of_a_whole_tree_are_read_with_scores_that_are_missing(tree):
    root, good, bad = tree
    exchange = {split: [[0.5, None], [0.5, 0.5]] for split in ("train", "valid")}
    summary_with(measures={"exchange": exchange})(bad)
    runs, problems = read_runs(root)
    assert {run.path for run in runs} == {good, bad}
    assert problems == []
    for run in runs:
        assert run.summary == json.loads((run.path / "summary.json").read_text())
        assert len(run.history) == 4 + 2 * 3


def test_a_run_under_way_is_named_and_not_read(tree):
    root, good, bad = tree
    bad.rename(bad.with_name(f"{bad.name}.partial"))
    runs, (problem,) = read_runs(root)
    assert [run.path for run in runs] == [good]
    assert problem.path.name == f"{bad.name}.partial"
    assert "has not ended" in problem.what


def summary_with(**changes):
    def change(path):
        summary = json.loads((path / "summary.json").read_text())
        rewrite(path, "summary.json", json.dumps(summary | changes))

    return change


def in_summary(old, new):
    def change(path):
        text = (path / "summary.json").read_text()
        assert old in text
        rewrite(path, "summary.json", text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / "summary.json").unlink(), "summary.json is missing; delete"),
        (lambda path: rewrite(path, "summary.json", "{"), "summary.json is damaged"),
        (lambda path: rewrite(path, "summary.json", "[" * 9999), "summary.json is damaged"),
        (lambda path: rewrite(path, "summary.json", b"\xff\xfe"), "summary.json is damaged"),
        (lambda path: rewrite(path, "summary.json", "[]"), "summary.json is none of a run"),
        (summary_with(branches=[]), "branches: list should have at least 1"),
        (summary_with(seed="one"), "seed: input should be a valid integer"),
        (summary_with(chosen_tau=9), "chooses tau 9, which none of its branches has"),
        (summary_with(method="ft"), "they are of two runs"),
        (summary_with(measures={"exchange": {"valid": [[0.5]]}}), "no matrix of 2 by 2"),
        (summary_with(sizes=[48, 6, 6]), "sizes: input should be a valid dictionary"),
        (summary_with(measures={"drift": {"distance": "far"}}), "measures.drift.distance"),
        (summary_with(measures={"exchange": 3}), "measures.exchange: input should be"),
        (summary_with(branches=[{"tau": 0}]), "branches.0.energy: field required"),
        (in_summary('"valid": 0.6', '"valid": 1e999'), "final.valid: input should be a finite"),
        (in_summary('"valid": 0.6', '"valid": NaN'), "final.valid: input should be a finite"),
        (in_summary('"valid": 0.6', '"wali": 0.6'), "no final valid and test score of tau 0"),
        (
            lambda path: rewrite(path, "config.yaml", "task: {\nseed: '0\n"),
            "config.yaml is damaged (line 3, column 1: found unexpected end of stream, in what "
            "begins in line 2); delete the folder",
        ),
        (lambda path: rewrite(path, "config.yaml", "3"), "should name a task and a method"),
        (lambda path: (path / "config.yaml").unlink(), "config.yaml is missing"),
    ],
)
def test_a_damaged_run_is_a_sentence_and_the_rest_is_read(tree, damage, words):
    root, good, bad = tree
    damage(bad)
    runs, (problem,) = read_runs(root)
    assert [run.path for run in runs] == [good]
    assert problem.path == bad
    assert words in problem.what
    assert "\n" not in problem.what


@pytest.mark.parametrize("text", [None, "{", '{"epoch": 1}', "3", '{"phase": "finetune"}'])
def test_without_a_history_the_scores_still_count(tree, text):
    root, _, bad = tree
    (bad / "history.jsonl").unlink()
    if text is not None:
        rewrite(bad, "history.jsonl", text)
    runs, (problem,) = read_runs(root)
    assert len(runs) == 2
    assert next(run for run in runs if run.path == bad).history is None
    assert "history.jsonl" in problem.what
    assert "training curves and costs leave it out" in problem.what


def test_what_is_cut_short_and_still_reads_well_is_found_by_its_size(tree):
    root, good, bad = tree
    lines = (good / "history.jsonl").read_text().splitlines(keepends=True)
    (good / "history.jsonl").write_text("".join(lines[:-1]))
    config = (bad / "config.yaml").read_text()
    (bad / "config.yaml").write_text(config.removesuffix("cut: null\n"))
    (run,), problems = read_runs(root)
    assert (run.path, run.history) == (good, None)
    told = {problem.path: problem.what for problem in problems}
    for path, name in ((good, "history.jsonl"), (bad, "config.yaml")):
        assert told[path].startswith(f"{name} should have the size that manifest.json lists")
    (bad / "config.yaml").write_text(config)
    (bad / "manifest.json").write_text("{")
    assert "manifest.json should have" in {p.path: p.what for p in read_runs(root)[1]}[bad]


def test_a_run_that_has_lost_its_weights_or_its_manifest_is_read(tree):
    root, good, bad = tree
    rewrite(good, "model.safetensors", "many numbers")
    (good / "model.safetensors").unlink()
    (bad / "manifest.json").unlink()
    runs, problems = read_runs(root)
    assert {run.path for run in runs} == {good, bad}
    assert problems == []


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(FILES), st.integers(0, 10**6), st.binary(max_size=8), st.booleans())
def test_no_damage_stops_the_rest(tmp_path_factory, name, place, written, cut):
    """Bytes overwritten anywhere in any file: an exception is never what comes of it."""
    root = tmp_path_factory.mktemp("damage")
    good = write_run(root, {0: (0.6, 0.5)}, seed=0)
    bad = write_run(root, {0: (0.6, 0.5)}, seed=1)
    content = (bad / name).read_bytes()
    at = place % len(content)
    after = b"" if cut else content[at + len(written) :]
    (bad / name).write_bytes(content[:at] + written + after)
    runs, _ = read_runs(root)
    assert good in [run.path for run in runs]
    shutil.rmtree(root)


@pytest.mark.parametrize("name", ["summary.json", "config.yaml"])
def test_a_file_of_the_sweep_itself_hides_no_run_below_it(tree, name):
    root, good, bad = tree
    (root / "sweep" / name).write_text("{}")
    runs, problems = read_runs(root)
    assert {run.path for run in runs} == {good, bad}
    assert len(problems) == (name == "summary.json")


@pytest.mark.parametrize("text", [None, "", "[]", '{"spent": null}', '{"spent": true}'])
def test_without_what_a_choice_took_no_cost_is_made_up(tree, text):
    root, *_ = tree
    chosen = write_run(root, {4: (0.7, 0.6)}, seed=2, spent=6)
    assert next(run for run in read_runs(root)[0] if run.path == chosen).spent == 6
    (chosen / "choice.json").unlink()
    if text is not None:
        rewrite(chosen, "choice.json", text)
    runs, (problem,) = read_runs(root)
    assert next(run for run in runs if run.path == chosen).history is None
    assert "choice.json" in problem.what


def test_a_place_without_runs_says_what_was_found(tmp_path):
    with pytest.raises(ValueError, match="no folder at"):
        read_runs(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no finished run that can be read; `molhpft run"):
        read_runs(tmp_path)
    (tmp_path / "a.partial").mkdir()
    with pytest.raises(ValueError, match=r"can be read \(a.partial: the run has not ended"):
        read_runs(tmp_path)


def test_a_model_is_told_from_a_place_without_runs(tmp_path):
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"is a model, and its scores are in its card, .*README"):
        read_runs(tmp_path)


ENTRY = {"smiles": "CO", "moved": 1.5, "energy": 0.5, "target": "y", "label": 1, "predicted": 0.5}


def test_standouts_are_read_or_refused_in_a_sentence(tree):
    root, good, _ = tree
    run = next(run for run in read_runs(root)[0] if run.path == good)
    with pytest.raises(ValueError, match="set features: true in its config"):
        read_standouts(run)
    whole = json.dumps({"moved": [ENTRY], "energy": []}) + "\n"
    rewrite(good, "molecules.json", whole)
    assert read_standouts(run)["moved"][0].smiles == "CO"
    (good / "molecules.json").write_text(whole[:-1])
    with pytest.raises(ValueError, match=r"molecules.json should have the size that manifest"):
        read_standouts(run)
    far = json.dumps({"moved": [ENTRY | {"moved": "far"}]})
    for text in ("", "[]", "{", '{"moved": [{}]}', far):
        rewrite(good, "molecules.json", text)
        with pytest.raises(ValueError, match=r"molecules.json is damaged \(.*\); delete the"):
            read_standouts(run)


@pytest.mark.parametrize(("written", "words"), [(None, "not given"), (FORMAT - 1, FORMAT - 1)])
def test_a_run_of_another_format_is_left_out_with_the_way_to_redo_it(tree, written, words):
    root, good, bad = tree
    summary = json.loads((bad / "summary.json").read_text())
    del summary["format"]
    more = {} if written is None else {"format": written}
    rewrite(bad, "summary.json", json.dumps(summary | more))
    runs, (problem,) = read_runs(root)
    assert [run.path for run in runs] == [good]
    assert problem.of_other_format
    assert f"(format {words}, this one writes {FORMAT})" in problem.what
    assert problem.what.endswith("run its config again")
