"""Compares methods on a user's prompts: workloads, runner, report."""
