"""Data stage: rows are read, cleaned, deduplicated and split."""
