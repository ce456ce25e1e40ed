"""The journal: the events of every run, durable, and what is kept beside them to answer quickly."""
