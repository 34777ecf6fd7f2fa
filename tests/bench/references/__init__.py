"""What a competent user would write or tune instead of Afterwrite: small, fair programs.

Each is a program of its own, told by its arguments what to do, so that it is a process beside ours
and its CPU time can be told from everything else.
"""
