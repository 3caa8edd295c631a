"""Encoders ranked for a task: what is scored, what is never read, what is refused and shown."""

import io
import json
import re
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from molhpft.advice import rank as ranking
from molhpft.advice.rank import READS, SCORES, rank, rank_reading, rank_table
from molhpft.config.changes import parse_changes
from molhpft.config.schema import parse_config
from molhpft.core.data import Task
from molhpft.core.evaluate import take
from molhpft.domains.weights import read_weights, strip_prefix
from molhpft.measure.transferability import leep_of_outputs
from molhpft.run.run import run
from tests.runs import network_of, task_of

SHIPPED = "gcn_structure"
QUICK = {"method": "ft", "finetune": {"epochs": 1, "lr": 0.003, "batch_size": 16}}


@pytest.fixture(scope="module")
def ranked(small):
    """The part of a config that is read."""
    return partial(small, reader=READS)


@pytest.fixture(scope="module")
def pretrained(small, tmp_path_factory):
    """Weight files of two runs, which still have their heads."""
    out = tmp_path_factory.mktemp("runs")
    targets = {"rings": ["ring"], "sizes": ["size"]}
    return {
        name: str(run(small(task={"name": "csv", "target_columns": t}, **QUICK), out).path)
        for name, t in targets.items()
    }


@pytest.fixture(scope="module")
def found(ranked, pretrained):
    return rank(ranked(), list(pretrained.values()))


def test_rows_are_in_the_order_of_the_first_score(found):
    rows = found["encoders"]
    assert [row["probe"] for row in rows] == sorted((row["probe"] for row in rows), reverse=True)
    assert next(iter(SCORES)) == ranking.ORDERED_BY
    assert all(row["seconds"] > 0 and row["width"] == 8 for row in rows)
    assert json.loads(json.dumps(found)) == found


def test_the_test_split_is_never_read(ranked, pretrained, monkeypatch):
    asked, real, checked = set(), Task.rows, ranking.build_task

    def built(config, recipe):
        task = checked(config, recipe)  # which looks whether every split can be scored
        asked.clear()
        return task

    monkeypatch.setattr(ranking, "build_task", built)
    monkeypatch.setattr(Task, "rows", lambda self, split: asked.add(split) or real(self, split))
    rank(ranked(), [pretrained["rings"]])
    assert asked == {"train", "valid"}


def test_a_file_is_ranked_by_what_it_holds_whatever_encoder_the_config_names(ranked, pretrained):
    config = ranked(encoder={"name": "dmpnn", "width": 16})
    (row,) = rank(config, [pretrained["rings"]])["encoders"]
    assert row["width"] == 8


def test_only_standardised_features_are_scored_where_the_config_says_so(ranked, pretrained):
    plain, other = (
        rank(ranked(standardise=on), [pretrained["rings"]])["encoders"][0] for on in (False, True)
    )
    assert plain["logme"] != other["logme"]
    assert plain["leep"] == pytest.approx(other["leep"], rel=1e-4)  # its head reads them as before


def test_a_regression_has_no_scores_of_classes_and_says_so(ranked, pretrained):
    config = ranked(task={"name": "csv", "target_columns": ["size"]})
    result = rank(config, [pretrained["sizes"]])
    (row,) = result["encoders"]
    assert all(row[name] is None for name in ("h_score", "transrate", "leep"))
    assert all(row[name] is not None for name in ("probe", "neighbours", "logme"))
    assert result["undefined"] == {
        "H-score, TransRate, LEEP": "they are of classes, and targets are numbers"
    }


def test_leep_is_of_the_head_that_the_file_has(found, small, pretrained):
    path = pretrained["rings"]
    config = small(encoder={"weights": path})
    task, network = task_of(config), network_of(config)
    network.head.load_state_dict(strip_prefix(read_weights(Path(path)).tensors, "head."))
    snapshot = take(network, task.batches("train", size=64))
    expected = leep_of_outputs(snapshot.logits.sigmoid(), snapshot.targets[:, 0].long())
    row = next(row for row in found["encoders"] if row["weights"] == path)
    assert row["leep"] == pytest.approx(expected)


def test_an_encoder_without_a_head_of_classes_has_no_leep_and_the_reason(found, pretrained):
    row = next(row for row in found["encoders"] if row["weights"] == pretrained["sizes"])
    assert row["leep"] is None
    assert f"No LEEP of {row['name']}: its head predicts numbers" in rank_reading(found)


@pytest.mark.slow
def test_a_task_of_class_ids_of_other_examples_is_ranked(tmp_path):
    raw = {"task": "toy", "encoder": {"name": "toy_mlp"}}
    path = run(parse_config({**raw, **QUICK, "seed": 1}), tmp_path).path
    result = rank(parse_config(raw, reader=READS), [str(path)])
    (row,) = result["encoders"]
    assert result["metric"] == "accuracy"
    assert 0.3 < row["probe"] <= 1
    assert row["leep"] < 0  # the file's head has classes


def test_scores_are_means_over_targets_each_of_the_examples_that_have_its_label(
    tmp_path, pretrained
):
    lines = ["smiles,ring,long,split"]
    for n in range(3, 33):
        split = {0: "valid", 1: "test"}.get(n % 5, "train")
        lines.append(f"{'C' * n}O,0,{int(n > 15) if n % 4 else ''},{split}")
        lines.append(f"C1{'C' * n}1N,1,{int(n > 20)},{split}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    table = {"name": "csv", "path": str(path), "split": "column", "split_column": "split"}
    both, ring, long = (
        rank(
            parse_config({"task": table | {"target_columns": columns}}, reader=READS),
            [pretrained["rings"]],
        )["encoders"][0]
        for columns in (["ring", "long"], ["ring"], ["long"])
    )
    for name in SCORES:
        assert both[name] == pytest.approx((ring[name] + long[name]) / 2), name


@pytest.fixture
def ranked_by(tmp_path, pretrained):
    """Ranks by chains and rings of 40 molecules, of which the first so many have a label."""

    def ranked(**labelled):
        lines = [",".join(["smiles,split", *labelled])]
        for n in range(40):
            name = "C" * (n + 3) if n % 2 else f"C1{'C' * (n + 3)}1"
            split = {0: "train", 1: "train"}.get(n // 2 % 4, ["valid", "test"][n // 2 % 2])
            rows = sum(line.split(",")[1] == "train" for line in lines)
            own = [n % 2 if split != "train" or rows < most else "" for most in labelled.values()]
            lines.append(",".join([name, split, *map(str, own)]))
        path = tmp_path / f"{len(labelled)}.csv"
        path.write_text("\n".join(lines) + "\n")
        table = {"name": "csv", "path": str(path), "split": "column", "split_column": "split"}
        config = parse_config({"task": table | {"target_columns": list(labelled)}}, reader=READS)
        return rank(config, [pretrained["rings"]])

    return ranked


def test_neighbours_that_are_all_examples_have_no_score_and_the_reason(ranked_by):
    result = ranked_by(ring=10)
    assert result["encoders"][0]["neighbours"] is None
    sentence = "No 10-NN: neighbours tell examples apart from 11 labels on, and training has 10."
    assert sentence in rank_reading(result)
    assert ranked_by(ring=11)["encoders"][0]["neighbours"] is not None


def test_the_score_by_neighbours_is_of_the_targets_that_have_more_labels_than_neighbours(ranked_by):
    whole, both = ranked_by(ring=99), ranked_by(ring=99, few=10)
    assert both["encoders"][0]["neighbours"] == whole["encoders"][0]["neighbours"] != 0.5
    assert "No 10-NN of few: neighbours tell" in rank_reading(both)
    assert "10-NN" not in rank_reading(whole)


def test_large_splits_are_sampled(ranked, pretrained, monkeypatch):
    monkeypatch.setattr(ranking, "MOST_EXAMPLES", 5)
    assert rank(ranked(), [pretrained["rings"]])["sizes"] == {"train": 5, "valid": 5}


@pytest.mark.parametrize(
    ("encoders", "message"),
    [([], "are missing"), ([SHIPPED, SHIPPED], "given twice"), (["absent"], "no weight file")],
)
def test_encoders_that_cannot_be_compared_are_one_sentence(ranked, encoders, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        rank(ranked(), encoders)


def test_a_file_that_is_absent_is_noticed_before_any_is_scored(ranked, monkeypatch):
    monkeypatch.setattr(ranking, "build_task", None)
    with pytest.raises(FileNotFoundError, match="absent"):
        rank(ranked(), [SHIPPED, "absent"])


def test_the_table_has_a_line_for_each_encoder_best_first(found):
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(rank_table(found))
    text = console.export_text()
    names = [row["name"] for row in found["encoders"]]
    assert text.index(names[0]) < text.index(names[1])
    assert "LogME" in text


def test_the_reading_is_a_change_that_a_config_takes(found, ranked):
    (change,) = re.findall(r"--set '(.*?)'", rank_reading(found))
    value = parse_changes([change])["encoder"]
    assert ranked(encoder=value).encoder.options["weights"] == Path(found["encoders"][0]["weights"])
