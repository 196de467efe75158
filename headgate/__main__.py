"""Run the command: `python -m headgate` is the same as `headgate`."""

from headgate.producer.cli import main

main()
