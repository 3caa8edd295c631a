"""A page, tables and figures from run folders alone."""
