"""Figures for papers and for the README, drawn by matplotlib: `python -m hrn.evaluation.figures --help`."""
