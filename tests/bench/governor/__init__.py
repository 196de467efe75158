"""The governor beside what else one could use: limits, order, peers, and what waiting costs.

`python -m tests.bench governor [--seconds S] [--settle S] [--only NAME,...] [--markdown]`.
"""
