"""From raw files to tables, plots and report.md."""
