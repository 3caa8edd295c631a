"""Errors name options that there are."""

import pytest
from typer.main import get_command

from molhpft.cli.app import app
from molhpft.config.options import keywords
from molhpft.domains.molecules.table_options import FLAGS, how_to_give
from molhpft.domains.molecules.tables import table_task


@pytest.mark.parametrize("option", FLAGS)
def test_a_flag_is_one_of_all_commands_that_are_said_to_have_it_and_of_no_other(option):
    flag, commands = FLAGS[option]
    having = {
        name
        for name, command in get_command(app).commands.items()
        if any(flag in parameter.opts for parameter in command.params)
    }
    others = {"explain"} if flag == "--target" else set()  # of a model, not of a table
    assert having - others == set(commands)
    assert option in keywords(table_task)
    assert how_to_give(option).startswith(f"{flag} NAME in {commands[0]}")
