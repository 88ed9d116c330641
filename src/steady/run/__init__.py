"""Execution of trials: the scheduler, the ledger of what began, ended and is retried, and the jobs that it submits."""
