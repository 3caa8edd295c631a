"""Shapes and types are checked at every call of the packages below, which nothing has imported yet.

Their annotations (`Float[Tensor, "n d"]`) thus cannot lie; see `molhpft/core/annotations.py`.
"""

from contextlib import contextmanager

import jaxtyping
from beartype import BeartypeConf, beartype

PACKAGES = ["molhpft.core", "molhpft.measure", "molhpft.tuning"]
typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float
jaxtyping.install_import_hook(PACKAGES, "tests.shapes.typechecker")


@contextmanager
def unchecked():
    """Arguments of any type are let through, for what the code itself refuses."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
