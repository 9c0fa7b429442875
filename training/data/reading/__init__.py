"""Rows of a source, read, cleaned and counted."""
