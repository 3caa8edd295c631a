"""Optional packages: imported where they are used, and one sentence where they are missing."""

from importlib import import_module
from types import ModuleType


class MissingExtraError(ModuleNotFoundError):
    """A package that only some commands need is not installed; the message says how to get it."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import a module of an optional package.

    >>> require("xml.dom", extra="report").__name__
    'xml.dom'

    Args:
        module: full name, such as "captum.attr".
        extra: the extra of this package that installs it.

    Raises:
        MissingExtraError: the package is not installed.
    """
    package = module.partition(".")[0]
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # the package is there, but broken or of another version
            raise
        raise MissingExtraError(
            f'this needs {package}, which is not installed: pip install "molhpft[{extra}]"',
            name=package,
        ) from error
    return import_module(module)
