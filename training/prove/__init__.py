"""Proof of each hop from the tuned weights to the exported model: merge, calibrate, evaluate, export, verify."""
