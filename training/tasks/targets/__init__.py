"""Targets in training: reading, splitting, learning and measuring of each kind of label."""
