"""Reaching PostgreSQL: connections that can be cancelled, locks with retries, and the embedded server."""
