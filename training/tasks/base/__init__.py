"""The base model: its config, its head, and how it is loaded."""
