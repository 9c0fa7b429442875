"""Comparison of two versions on the same rows, and the decision which of them is served."""
