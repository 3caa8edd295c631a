"""A page, tables and figures from run folders alone."""

from molhpft.report.page import Report, write_report

__all__ = ["Report", "write_report"]
