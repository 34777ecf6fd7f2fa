"""The front end: accepts commands, reads PostgreSQL, never writes it."""
