"""The contract that the front end and the writer share. It performs no I/O."""
