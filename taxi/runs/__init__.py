"""A month executed and kept: papermill notebooks, kernels, step fingerprints, results, the MLflow run, the DVC snapshot."""
