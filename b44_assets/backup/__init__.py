"""Backups, and their restoration, by which they are verified. Nothing here knows of Dagster."""
