"""The benchmark: every figure beside its reference, measured in the same run.

`python -m tests.bench NAME…` runs measurements by name, `make bench` all of them. registry.py lists
them; result.py is what each gives back; rig.py has the servers, the clocks and the counters.
"""
