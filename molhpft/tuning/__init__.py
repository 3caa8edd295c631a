"""Phases, recipes and the one training loop."""
