"""The core: values and pure functions; no clock, no disk, no log, no randomness."""
