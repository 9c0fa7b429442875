"""Contract between training and serving: the files that one writes and the other opens."""
