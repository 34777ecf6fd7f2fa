"""The embedded stack: PostgreSQL, Valkey or Redis, and Kafka as local processes in one folder.

Read in this order: `home` (what is kept where), `sources` (which binary is taken), `postgres`,
`redis`, `kafka` (one service each), `process` and `launch` (how a child is started so that none is
ever orphaned), `services` (the three services alone, for tests), `supervisor` and `stack`
(everything, for `afterwrite up`).
"""
