"""From labelled data to a proven, packaged bundle: one module per stage."""
