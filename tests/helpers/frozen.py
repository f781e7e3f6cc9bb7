"""Imported last by a process that others are forked from: none of them goes round, and so copies, what was imported before."""

import gc

gc.enable()
# As the command does.
gc.set_threshold(50_000, 20, 20)
gc.collect()
gc.freeze()
