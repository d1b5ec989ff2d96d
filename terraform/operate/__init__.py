"""Operating the environments: what a plan costs, what was changed by hand, whether alarms arrive, and when one may be destroyed."""
