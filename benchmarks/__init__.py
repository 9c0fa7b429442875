"""Benchmarks of Bentune's service, its training, and comparable servers."""
