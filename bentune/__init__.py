"""Command line of Bentune."""
