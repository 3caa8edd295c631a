"""One command for each thing that a change needs; all run in the environment that is active.

$ nox -l           # lists them
$ nox -s lint      # one of them
$ nox              # lint and the fast tests
"""

from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint, types. `nox -s lint -- --check` changes no file."""
    session.run("ruff", "format", *session.posargs)
    session.run("ruff", "check")
    session.run("mypy")
    scripts = [str(path) for folder in ("docs", "examples") for path in Path(folder).glob("*.py")]
    session.run("mypy", "--strict", *scripts)


@nox.session
def tests(session: nox.Session) -> None:
    """The fast tests, in a few minutes on two cores."""
    session.run("pytest", *session.posargs)


@nox.session(name="all")
def all_tests(session: nox.Session) -> None:
    """All tests: the fast ones and those marked slow."""
    session.run("pytest", "-m", "", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site in build/site."""
    session.run("mkdocs", "build", "--strict", *session.posargs)
