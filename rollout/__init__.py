"""Rollout from bundle to cluster: scoring, serving, comparison and release.

It works on the base install, without torch.
"""
