"""The report: one self-contained page over all stages of a loop."""

from visionloop.monitoring.report.build import build_report, write_report

__all__ = ["build_report", "write_report"]
