"""Moderations: the verdicts of a vendor, and those of an operator's own function."""
