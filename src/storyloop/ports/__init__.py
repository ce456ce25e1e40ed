"""Ports: what the engine needs of the world, as protocols, each with at least two implementations.

Every implementation passes the contract suite of its port (`tests/ports/`). A port reports facts and
raises only for its operator (`OperatorError`: disk full, repository gone) or its programmer; a failure that
belongs to the run (an agent that crashed, a check that is red) is a value. The forge alone has an error of its own:
each of its calls can fail in the same seven ways.
"""
