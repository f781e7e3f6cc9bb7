"""Keeping a migrated database in shape: vacuum, statistics, indexes, query plans, sizes."""
