"""Editions of the metrics store."""
