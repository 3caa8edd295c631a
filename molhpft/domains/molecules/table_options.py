"""What the options of a table are called, for errors that ask for one of them.

A table is read for commands that have flags, for commands that only have `--set`, for configs and
for Python: an error names the flag with the commands that have it, then the key that all others
have.
"""

from molhpft.domains.files import listed

FLAGS = {
    "smiles_column": ("--smiles-column", ("finetune", "predict", "embed")),
    "target_columns": ("--target", ("finetune",)),
    "kind": ("--kind", ("finetune",)),
    "split": ("--split", ("finetune", "run", "probe", "sweep")),
    "split_column": ("--split-column", ("finetune",)),
    "group_column": ("--groups", ("finetune",)),
    "time_column": ("--time", ("finetune",)),
}
"""Option of a table to its flag and the commands that have that."""

COLUMNS = {"split_column": "splits", "group_column": "groups", "time_column": "times"}
"""Options that name a column beside molecules and targets, and what that is of."""


def how_to_give(option: str, value: str = "NAME") -> str:
    """How an option of a table is given, as the end of a sentence.

    >>> how_to_give("group_column")
    '--groups NAME in finetune, elsewhere --set task.group_column=NAME'
    >>> how_to_give("target_columns", "ring")
    "--target ring in finetune, elsewhere --set 'task.target_columns=[ring]'"

    Args:
        option: a key of `FLAGS`.
        value: what it is to be.
    """
    flag, commands = FLAGS[option]
    key = f"task.{option}={value}"
    key = f"'task.{option}=[{value}]'" if option == "target_columns" else key
    return f"{flag} {value} in {listed(commands)}, elsewhere --set {key}"
