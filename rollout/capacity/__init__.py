"""Sizing of a cluster: pods for a load, the autoscaler's settings, and their simulation."""
