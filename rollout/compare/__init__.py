"""Comparison of two versions on the same rows, and the decision between them."""
