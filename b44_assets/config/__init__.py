"""Settings from the environment, and the quantities that they are written in."""
