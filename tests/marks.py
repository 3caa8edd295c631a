"""Cases of parametrised tests that fast runs leave out."""

import pytest


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)
