"""`python -m molhpft.cli` is the `molhpft` command."""

from molhpft.cli.app import main

main()
