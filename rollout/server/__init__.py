"""Servers under test: started from a Bento or found at an address, and what they report."""
