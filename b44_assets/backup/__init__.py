"""Backups, and their restoration, which alone proves them. Nothing here knows of Dagster."""
