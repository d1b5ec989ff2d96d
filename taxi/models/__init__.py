"""The model: boosting, calibrated intervals, baselines, fitting, scoring, evaluation, hyperparameter search."""
