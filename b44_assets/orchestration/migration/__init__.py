"""The migration of records as Dagster definitions: staged exports, tables, their checks, jobs and sensors."""
