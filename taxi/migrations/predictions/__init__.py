"""Editions of the prediction store."""
