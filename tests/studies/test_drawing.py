"""Figures are drawn for any number of taus, in the format that their name says."""

import re
from itertools import pairwise

import pytest
import torch
from matplotlib import rc_context
from matplotlib.text import Text

from molhpft.studies import drawing
from molhpft.studies.drawing import Line, TauPanel
from tests.marks import slow

PNG = b"\x89PNG"


CELL = r'x="([\d.]+)" y="([\d.]+)"[^>]*>(\d+\.\d)</text>'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "figure.png"


@pytest.mark.parametrize("count", [1, slow(7)])
def test_confidence_is_drawn_for_any_number_of_taus(path, count, rng):
    probabilities = {str(tau): torch.rand(30, generator=rng) for tau in range(count)}
    gradients = [10.0 ** (1 - tau) for tau in range(count)]
    drawing.confidence_figure(probabilities, gradients, [(0.0, 0.1, 0.2)] * count, path)
    assert path.read_bytes()[:4] == PNG


@pytest.mark.parametrize("count", [1, 7])
def test_an_exchange_is_drawn_for_any_number_of_networks(path, count):
    scores = {split: torch.eye(count, dtype=torch.float64) for split in ("train", "valid")}
    drawing.exchange_figure(scores, [str(tau) for tau in range(count)], path)
    assert path.read_bytes()[:4] == PNG


def test_columns_of_the_exchange_are_backbones(tmp_path):
    scores = torch.full((3, 3), 0.5, dtype=torch.float64)
    scores[0, 2] = 0.125  # backbone 0 under head 2
    with rc_context({"svg.fonttype": "none"}):
        drawing.exchange_figure({"train": scores}, ["0", "8", "∞"], tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    places = [(float(x), float(y), text) for x, y, text in re.findall(CELL, drawn)]
    ((x, y, _),) = [place for place in places if place[2] == "12.5"]
    assert x == min(place[0] for place in places)
    assert y == max(place[1] for place in places)
    assert drawn.index("backbone of tau") < drawn.index("head of tau")  # x before y


@pytest.mark.parametrize("count", [1, 2])
def test_kernels_are_drawn_for_one_backbone_or_two(path, count):
    seen = {
        "epochs": (0, 2, 4),
        "train": (0.3, 0.8, 0.9),
        "from_start": (0.0, 0.1, 0.2),
        "from_last": (0.1, 0.1),
    }
    drawing.kernel_figure(dict.fromkeys(["pretrained", "random"][:count], seen), path)
    assert path.read_bytes()[:4] == PNG


def test_a_figure_has_the_format_that_its_name_says(tmp_path):
    shift = dict.fromkeys(("distance", "cosine", "dot", "norm", "start_norm"), 1.0)
    drawing.shift_figure([{"shift": shift}] * 2, ["0", "∞"], tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text(encoding="utf-8")


TAUS = ["0", "1", "2", "4", "8", "16", "64", "256", "1,024", "infinity"]
NOTE = "means over training examples of the toy; " * 5


@pytest.fixture
def over_taus(path, monkeypatch):
    """Panels over many taus, drawn, with a note longer than they are wide."""
    made, save = [], drawing.save
    monkeypatch.setattr(drawing, "save", lambda f, *a, **k: (made.append(f), save(f, *a, **k)))
    panels = [TauPanel("Norm\n(units)", TAUS, [Line("", [1.0] * 10)], "a from b")] * 2
    drawing.tau_panels_figure(panels, path, columns=2, note=NOTE, title="A title")
    made[0].draw_without_rendering()  # sizes of text are those of the last drawing
    return made[0]


def test_no_label_of_a_tau_lies_on_the_next(over_taus):
    for axes in over_taus.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert len(boxes) == len(TAUS)
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_no_text_is_cut_off_at_an_edge(over_taus):
    texts = [text for text in over_taus.findobj(Text) if text.get_text().strip()]
    assert any("means over" in text.get_text() for text in texts)
    for box in (text.get_window_extent() for text in texts):
        assert box.x0 >= 0
        assert box.x1 <= over_taus.bbox.x1
