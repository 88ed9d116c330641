"""Execution of trials: the scheduler, the ledger of their lives, and the processes that they run in."""
