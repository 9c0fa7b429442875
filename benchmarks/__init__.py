"""Measures how fast Bentune's service is, and the servers that its users would otherwise take."""
