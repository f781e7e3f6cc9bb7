"""The Dagster side, thin: factories turn specs into assets and checks, and results of the engine into metadata.

What belongs here: names, dependencies, partitions, metadata. What does not: SQL, or any work that the engine could do.
"""
