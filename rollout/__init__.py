"""Rollout from bundle to cluster: offline scoring, serving, comparison and release, on the base install."""
