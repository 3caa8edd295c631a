"""Run folders read back: runs, groups of runs, statistics and tables."""
