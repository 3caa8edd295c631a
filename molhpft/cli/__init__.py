"""The command line: reads arguments, prints results, turns errors into one sentence each."""
