"""The only process that changes the database: applies commands, settles them, notifies."""
