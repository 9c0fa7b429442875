"""Tasks of the service: one input read, encoded, batched and answered."""
