"""Runtime plan: variants are built, checked and timed, and one is chosen."""
