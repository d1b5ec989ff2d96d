"""Outputs of a prediction: the names of its columns, all in minutes."""

# mean and median duration, and the ends of the 80 % interval
OUTPUTS = ["mean", "median", "p10", "p90"]
