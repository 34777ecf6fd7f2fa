"""The admin page: one operator on call sees how it is, why, and what waits, and acts on it.

sign in with a role → look → choose → read what it will do → order it → read what became of it

The front end cannot write PostgreSQL: what an operator orders is published, signed, and the writer does
it.
"""
