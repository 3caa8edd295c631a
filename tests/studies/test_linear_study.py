import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from molhpft.core.network import Batch
from molhpft.domains.toy.linear import linear_network, linear_task
from molhpft.measure.linear_theory import mean_squared_distance
from molhpft.studies import linear_study as studies
from molhpft.studies.linear_study import linear_start, linear_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Of six of the study's taus: each is 300 epochs of finetuning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "TAUS", (0, 2, 8, 20, 100, 1000))
        return linear_study(tmp_path_factory.mktemp("linear") / "new")


def curve(study, how, name):
    return [row[how][name] for row in study.rows]


def relative_error(study, name):
    closed, trained = (torch.tensor(curve(study, how, name)) for how in ("theory", "trained"))
    return ((closed - trained).abs().max() / (trained.max() - trained.min())).item()


@pytest.mark.slow
def test_finetuning_is_carried_to_the_end(study):
    assert max(row["loss"] for row in study.rows) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["distance", "dot", "norm", "cosine"])
def test_the_closed_form_is_what_gradient_descent_does(study, name):
    # the theory's kernel stays as it was, that of a network with a head of norm 3 does not quite
    bounds = {"distance": 0.1, "dot": 0.15, "norm": 0.3, "cosine": 0.1}
    assert relative_error(study, name) < bounds[name]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["theory", "trained"])
def test_energy_and_distance_fall_and_cosine_rises_with_tau(study, how):
    for values in (
        [row["energy"] for row in study.rows],
        curve(study, how, "distance"),
        [-cosine for cosine in curve(study, how, "cosine")],
    ):
        assert all(a > b for a, b in pairwise(values))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["theory", "trained"])
def test_the_norm_peaks_inside_and_before_the_dot_product(study, how):
    norm, dot = (
        values.index(max(values))
        for values in (curve(study, how, "norm"), curve(study, how, "dot"))
    )
    assert 0 < norm < dot < len(study.rows) - 1


@pytest.mark.slow
def test_regimes_go_from_strong_over_mild_to_tiny(study):
    order = ["strong", "mild", "tiny"]
    found = [row["regime"] for row in study.rows]
    assert found == sorted(found, key=order.index)
    assert set(found) == set(order)


@pytest.mark.slow
def test_features_move_less_far_than_proposition_1_allows_and_not_much_less(study):
    assert all(0 < row["moved"] < row["bound"] < 2 * row["moved"] for row in study.rows)


@pytest.mark.slow
def test_a_regime_is_named_where_the_row_of_its_energy_lies(study):
    strong, tiny = study.lemmas["regimes"]
    for row in study.rows:
        expected = (
            "strong" if row["energy"] > strong else "mild" if row["energy"] > tiny else "tiny"
        )
        assert row["regime"] == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dot", "norm"])
def test_the_critical_points_are_the_highest_of_the_curves_of_the_lemmas(study, name):
    energy, value = study.lemmas["critical"][name]
    curve = study.lemmas[name]
    # Lemma 3's outputs are no multiple of Y, so that they may lie above the curve
    assert value == pytest.approx(max(curve), rel=1e-3)
    assert energy == pytest.approx(study.lemmas["energies"][curve.index(max(curve))], abs=0.02)


@pytest.mark.slow
def test_there_is_a_figure_and_a_line_a_tau(study):
    assert study.figures["theory"].read_bytes()[:4] == b"\x89PNG"
    assert study.table.row_count == len(study.rows)


@pytest.mark.slow
def test_the_reading_names_the_peaks(study):
    taus = [row["tau"] for row in study.rows]
    dots = curve(study, "trained", "dot")
    assert f"and {taus[dots.index(max(dots))]}. On the straight way" in study.reading


@pytest.mark.slow
def test_the_reading_says_that_the_size_of_the_head_was_chosen(study):
    norm = study.lemmas["head_norm"]
    assert f"The random head has norm {norm:.1f}, where PyTorch's would have 0.6" in study.reading


@pytest.mark.slow
def test_the_summary_is_plain_values(study):
    assert json.loads(json.dumps(study.summary))["rows"] == study.rows


def test_a_start_is_a_copy_of_the_network(rng):
    task, network = linear_task(), linear_network(rng=rng)
    start = linear_start(network, task)
    before = mean_squared_distance(start)
    torch.testing.assert_close(start.outputs, network(task.examples.take(task.rows("train")))[:, 0])
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    assert mean_squared_distance(start) == before


class Graphs:
    targets = torch.zeros(10)

    def __len__(self):
        return 10

    def take(self, index, *, rng=None):
        return Batch(index, index)

    def to(self, device):
        return self


def test_the_theory_refuses_examples_that_are_no_numbers(rng):
    task = replace(linear_task(), examples=Graphs())
    with pytest.raises(TypeError, match="needs rows of numbers, got Graphs"):
        linear_start(linear_network(rng=rng), task)
