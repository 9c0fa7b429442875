"""Bentune beside its peers: the same weights and texts, measured in turns."""
