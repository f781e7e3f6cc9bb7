"""Moves an app off Base44 into a PostgreSQL of its owner's, as a Dagster asset graph."""
