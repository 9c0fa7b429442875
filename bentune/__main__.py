"""`python -m bentune` is the same as `bentune`."""

from bentune.cli import main

main()
