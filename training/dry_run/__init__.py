"""Dry run: time, memory and disk of a training, estimated from real steps."""
