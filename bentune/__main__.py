"""Entry point of `python -m bentune`."""

from bentune.cli import main

main()
