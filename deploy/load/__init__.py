"""`afterwrite load`: real content, sent through the HTTP API as its authors would send it.

`stackexchange` reads a dump, `loader` sends it by way of `api` and remembers in `state` how far it
came, `report` says what became of every row, and `verify` compares PostgreSQL with the file.
"""
