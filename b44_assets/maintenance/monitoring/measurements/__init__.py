"""The measurements, by what they look at: sessions, the server, storage, its settings."""
