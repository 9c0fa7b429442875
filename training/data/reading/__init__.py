"""Reading, cleaning and counting of a source's rows."""
