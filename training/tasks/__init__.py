"""Tasks of training: rows, processors, heads and targets of each kind of model."""
