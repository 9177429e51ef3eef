"""Taught early exits (DSSD, arXiv 2407.21082): what they are, how sure they must be, and how they
are taught."""

DEFAULT_EPSILON = 0.8
"""The accuracy that thresholds are calibrated for. Not tuned."""
