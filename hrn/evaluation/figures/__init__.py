"""Figures for papers and the README, drawn with matplotlib: `python -m hrn.evaluation.figures --help`."""
