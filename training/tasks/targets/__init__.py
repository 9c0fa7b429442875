"""Targets in training: labels read, split, learned and measured, one class for each kind."""
