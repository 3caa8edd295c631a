import sys

import pytest

from molhpft.cli import app as cli


@pytest.fixture
def molhpft(monkeypatch, capsys):
    """Runs the command; gives exit status, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["molhpft", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (stop.value.code or 0, *capsys.readouterr())

    return run
