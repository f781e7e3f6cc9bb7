"""A job run in this process, as commands and `b44_assets.api` do: its preconditions, its part of the graph, its outcome.

What belongs here: all that both need around a run. What does not: options, and anything that is printed.
"""
