"""Imported last by a process that others are forked from: none of them goes round, and so copies, what was imported before."""

import gc

from b44_assets.catalog.loader import load_runtime

# The program's own files, which each of them needs.
load_runtime()
gc.enable()
# As the command does.
gc.set_threshold(50_000, 20, 20)
gc.collect()
gc.freeze()
