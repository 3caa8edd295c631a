"""Options are the keyword-only parameters of what is named, with their types and defaults."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from molhpft.config.options import checked, keywords, unknown


def entry(given, *, path: Path, size: int = 3, rate: float = 0.1, taus: tuple[int, ...] = (1,)):
    return given, path, size, rate, taus


def test_only_keyword_only_parameters_are_options():
    assert list(keywords(entry)) == ["path", "size", "rate", "taus"]


def test_defaults_are_filled_in_and_types_converted():
    given = {"path": "a.csv", "rate": "1e-3", "taus": 4}  # a lone value stands for a tuple of one
    options = checked("task", keywords(entry), given)
    assert options == {"path": Path("a.csv"), "size": 3, "rate": 0.001, "taus": (4,)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "a", "siz": 1}, "unknown key task.siz; did you mean task.size"),
        ({}, "missing key task.path"),
        ({"pth": "a"}, "unknown key task.pth; did you mean task.path"),
        ({"path": "a", "size": "many"}, "task.size is 'many', which does not fit: input should be"),
        ({"path": "a", "size": 2.5}, r"task\.size is 2\.5, which does not fit"),
        ({"path": "a", "taus": ["x"]}, "task.taus is 'x', which does not fit"),
    ],
)
def test_an_option_that_does_not_fit_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        checked("task", keywords(entry), given)


def test_a_sentence_of_our_own_stands_without_the_words_of_a_library():
    @dataclass(frozen=True)
    class Even:
        n: int

        def __post_init__(self):
            if self.n % 2:
                raise ValueError(f"n should be even, got {self.n}")

    def pick(*, even: Even):
        return even

    with pytest.raises(ValueError, match=r"does not fit: n should be even, got 3$"):
        checked("task", keywords(pick), {"even": {"n": 3}})


def test_a_word_with_a_meaning_of_its_own_is_no_tuple():
    def pick(*, taus: tuple[int, ...] | Literal["auto"] = "auto", how: Literal["a", "b"] = "a"):
        return taus, how

    assert checked("", keywords(pick), {"taus": "auto"})["taus"] == "auto"
    assert checked("", keywords(pick), {"taus": 3})["taus"] == (3,)
    with pytest.raises(ValueError, match="taus is 'atuo', which does not fit"):
        checked("", keywords(pick), {"taus": "atuo"})
    with pytest.raises(ValueError, match="how is 'c', which does not fit: input should be 'a' or"):
        checked("", keywords(pick), {"how": "c"})


@pytest.mark.parametrize(
    ("key", "meant"),
    [("method.tua", "method.tau"), ("method.nam", "method.name"), ("method.norm", None)],
)
def test_a_section_that_two_keys_share_makes_them_no_more_alike(key, meant):
    hint = f"did you mean {meant}? " if meant else ""
    valid = ["method.name", "method.tau"]
    assert unknown(key, valid) == f"unknown key {key}; {hint}valid: method.name, method.tau"


def test_an_unknown_name_comes_with_the_valid_ones():
    message = unknown("gnc", ["gcn", "mlp"], "encoder")
    assert message == "unknown encoder gnc; did you mean gcn? valid: gcn, mlp"
