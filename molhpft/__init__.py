"""Prepare the task head, then finetune: HP-FT transfer learning for molecules and graphs."""
