"""Prepare the task head, then finetune: HP-FT transfer learning for molecules and graphs."""

from importlib.metadata import version

__version__ = version("molhpft")
