"""The app folder of any Base44 app, written from its entity schemas and an export."""
