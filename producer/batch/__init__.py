"""Batches: a file of prompts in, a file of results out; can be killed and resumed at any point.

`input` reads the lines, `enqueue` queues them, `poll` finds the jobs that have ended, and `output`
writes the results; `run` is the loop over these. `rows` reads and writes the database, `summary`
counts the results.
"""
