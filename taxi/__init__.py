"""Predicts how long a New York taxi trip will take, from the TLC's monthly trip records."""
