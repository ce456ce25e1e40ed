"""The engine: performs what the plan owes, and reports facts."""
