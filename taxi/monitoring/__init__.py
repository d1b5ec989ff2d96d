"""The model in use: monthly monitor, drift, alarm rules, alarm channels, the central metric store."""
