"""Tasks of training: rows, processors, models and targets of each kind of input."""
