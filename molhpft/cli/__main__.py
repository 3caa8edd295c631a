"""`python -m molhpft.cli` is the `molhpft` command."""

from molhpft.cli.main import main

main()
