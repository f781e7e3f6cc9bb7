"""The migration: exports are staged, their versions resolved, what becomes of each record planned, loaded and verified."""
