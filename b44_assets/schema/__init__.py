"""Objects of an app folder brought into the database, kept as their files say, and checked."""
