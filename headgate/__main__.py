"""Run the command `headgate`: `python -m headgate` is the same."""

from headgate.producer.cli import main

main()
