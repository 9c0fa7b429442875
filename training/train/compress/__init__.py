"""Smaller models: pruning and distillation."""
