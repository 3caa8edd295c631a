import pytest
import torch

from molhpft.experiments import toy_figures

PNG = b"\x89PNG"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "figure.png"


@pytest.mark.parametrize("count", [1, 7])
def test_confidence_is_drawn_for_any_number_of_taus(path, count, rng):
    probabilities = {str(tau): torch.rand(30, generator=rng) for tau in range(count)}
    steepness = {str(tau): [2.0, 1.9, 2.1] for tau in range(count)}
    toy_figures.confidence_figure(probabilities, steepness, path)
    assert path.read_bytes()[:4] == PNG


@pytest.mark.parametrize("count", [1, 7])
def test_an_exchange_is_drawn_for_any_number_of_networks(path, count):
    scores = {split: torch.eye(count, dtype=torch.float64) for split in ("train", "valid")}
    toy_figures.exchange_figure(scores, [str(tau) for tau in range(count)], path)
    assert path.read_bytes()[:4] == PNG


def test_a_figure_has_the_format_that_its_name_says(tmp_path):
    shift = dict.fromkeys(("distance", "cosine", "dot", "norm", "start_norm"), 1.0)
    toy_figures.shift_figure([{"shift": shift}] * 2, ["0", "∞"], tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text(encoding="utf-8")
