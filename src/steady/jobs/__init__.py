"""Execution of jobs: in processes of this machine, or through the engine of a cluster."""
