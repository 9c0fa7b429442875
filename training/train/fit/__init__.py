"""Training loop: arguments, rows, samplers and sharding."""
