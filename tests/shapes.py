"""Shapes and types are checked at every call of the packages below, which nothing has imported yet.

Their annotations (`Float[Tensor, "n d"]`) thus cannot lie; see `molhpft/core/annotations.py`.
"""

import builtins
import re
import sys
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import partial, wraps
from inspect import isclass, isgeneratorfunction

import jaxtyping
from beartype import BeartypeConf, beartype

PACKAGES = ["molhpft.core", "molhpft.measure", "molhpft.tuning"]
typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float
jaxtyped = jaxtyping.jaxtyped
# within it one letter has one size
own_sizes = jaxtyped("context")


def checked(kind=None, *, typechecker):
    """Checks what jaxtyping's own decorator does, at a fifth of its price.

    That binds the arguments of every call, which only sizes that an argument names ("{n}") and
    generators need.
    """
    if kind is None:
        return partial(checked, typechecker=typechecker)
    if not _names_what_is_imported(kind.__init__ if isclass(kind) else kind):
        return jaxtyped(kind, typechecker=typechecker)
    if isclass(kind):
        if is_dataclass(kind) and not hasattr(kind.__init__, "__wrapped__"):
            kind.__init__ = checked(kind.__init__, typechecker=typechecker)
        return kind
    if isgeneratorfunction(kind) or "{" in str(list(kind.__annotations__.values())):
        return jaxtyped(kind, typechecker=typechecker)
    checking = typechecker(kind)

    @wraps(kind)
    def call(*args, **kwargs):
        if jaxtyping.config.jaxtyping_disable:
            return kind(*args, **kwargs)
        with own_sizes:
            return checking(*args, **kwargs)

    return call


def _names_what_is_imported(function):
    """Whether its annotations name nothing that is imported for mypy alone."""
    texts = [a for a in getattr(function, "__annotations__", {}).values() if isinstance(a, str)]
    names = vars(sys.modules[function.__module__]) if texts else {}
    words = {word for text in texts for word in re.findall(r"[A-Za-z_]\w*", text)}
    return words <= names.keys() | vars(builtins).keys()


# the hook writes this name above every function
jaxtyping.jaxtyped = checked
jaxtyping.install_import_hook(PACKAGES, "tests.shapes.typechecker")


@contextmanager
def unchecked():
    """Arguments of any type are let through, for what the code itself refuses."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
