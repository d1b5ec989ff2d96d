"""What was answered and what became of it: prediction log, spool, store, outcomes, arms of an experiment."""
