"""Report of a run and model card."""
