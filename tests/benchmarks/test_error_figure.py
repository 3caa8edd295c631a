"""A figure of errors relative to one model's."""

import numpy as np
import pytest

SCORES = np.array([[0.5, 90.0], [1.0, 80.0]])


@pytest.fixture
def figures():
    import error_figure

    return error_figure


@pytest.fixture
def sets(figures):
    from development_sets import DevelopmentSet

    labels = np.zeros((1, 1))
    return [
        DevelopmentSet(name, group, ("C",), labels, classes, ())
        for name, group, classes in (("caco2", "ADMET", False), ("bace", "OGB", True))
    ]


def test_half_the_error_is_half_in_either_unit(figures, sets):
    found = figures.relative_errors(SCORES, sets, 1)
    assert found == pytest.approx(np.array([[0.5, 0.5], [1, 1]]))


def test_a_figure_is_of_the_kind_that_its_name_says(figures, sets, tmp_path):
    figures.draw_errors(["all", "svr"], sets, SCORES, tmp_path / "a.svg", reference="svr")
    text = (tmp_path / "a.svg").read_text()
    assert text.startswith("<?xml")
    with pytest.raises(ValueError, match="relative to forest, which is no column"):
        figures.draw_errors(["all"], sets, SCORES[:1], tmp_path / "b.svg", reference="forest")
