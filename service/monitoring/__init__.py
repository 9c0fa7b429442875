"""Metrics, drift and the prediction log of a running service."""
