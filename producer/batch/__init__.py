"""Batches: a file of prompts in, a file of results out; can be killed and resumed at any point.

`lines` reads the input, `intake` queues it, `look` finds what has ended, `output` writes it, and
`run` is the loop over these; `record` is what the database knows, `summary` what it all came to.
"""
