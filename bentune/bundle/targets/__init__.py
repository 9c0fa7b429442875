"""Targets: the meaning of a model's outputs, one class for each kind."""
