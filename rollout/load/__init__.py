"""Load generator and benchmark of a server."""
