"""Run all of Slipway on one machine without containers: the services it needs, then its own processes.

Knows programs, ports, folders and signals. Refuses to know what a run, a model or a stage is; nothing in the
application imports it. `python -m stack` is the command, `stack.launcher.Stack` the same for tests.
"""
