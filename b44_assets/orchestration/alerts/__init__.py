"""Telling people: of failed runs, of checks that fail and are well again; by webhook, by e-mail, or both."""
