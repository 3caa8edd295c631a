"""A tree of run folders as one page to open, and as Markdown and CSV tables."""
