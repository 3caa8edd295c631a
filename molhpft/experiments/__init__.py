"""Configs to run folders: the only layer that reads configs and writes results."""
