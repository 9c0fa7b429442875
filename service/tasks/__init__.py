"""Tasks of the service: what one input is, how it is encoded, and how it is answered."""
