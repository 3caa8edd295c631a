"""Run folders read back: one tidy table, and what it says of methods over seeds."""
