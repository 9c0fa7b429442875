"""The command line of Bentune."""
