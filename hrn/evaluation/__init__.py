"""Scores by the field's protocol, tables and figures."""
