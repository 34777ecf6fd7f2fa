"""The mail workers: `afterwrite mail-worker`.

In the order of the story: `consumer` takes mails off the mail topic, as one of a group; `window` keeps
those of a partition that are not finished; `worker` picks the next that is due; `sending` decides what
becomes of it, with `rendering` and `message` for what it says, `smtp` for the server and `breaker` for
when that is away; `state_log` remembers, so that nothing is sent twice; `watch` ends a process that has
got stuck. `operation` is what `afterwrite mail` does.
"""
