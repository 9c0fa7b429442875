"""Comparison of Bentune with its peers: the same weights and texts, measured in turns."""
