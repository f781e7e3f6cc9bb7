"""The migration itself: staging, settling, loading, proving. Knows PostgreSQL and the exports, nothing of Dagster."""
