"""Measurements: each module prints a table and can write JSON. Report ratios of one run; machines are noisy."""
