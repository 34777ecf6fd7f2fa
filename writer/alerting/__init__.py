"""Alerts to administrators, by channels that know nothing of each other.

`channels.Channels` is the door: made from the settings, given alerts, asked how its channels are.
Each channel has its own queue, timeout, pauses and task; what hangs or refuses holds up only itself.
"""
