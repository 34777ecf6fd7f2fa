"""What operators do: look at dead letters, mend, replay and discard them; pause lanes; leave a trace.

The same functions serve the command line, with the operator's own connection, and the writer process,
which executes the acts that the administrators' page publishes. `perform.perform` is the one door.
"""
