"""`report.html`: one self-contained page about one run."""

from agent.report.page import write_report

__all__ = ["write_report"]
