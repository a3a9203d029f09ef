"""Metrics, test-set runs, tables, reports and figures."""
