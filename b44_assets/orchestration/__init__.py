"""The Dagster side, thin, by domain: `migration`, `schema`, `maintenance`, `backup`, `alerts`.

What belongs here: names, dependencies, partitions, metadata. What does not: SQL, or any work that the engine could do.
"""
