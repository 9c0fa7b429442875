"""Stage `data`: reading, cleaning, deduplication and splitting of rows."""
