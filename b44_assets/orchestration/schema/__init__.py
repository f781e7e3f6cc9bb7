"""The schema as Dagster definitions: what SQL files make, its checks, jobs, schedules and sensor."""
