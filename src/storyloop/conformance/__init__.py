"""Conformance: the real agent CLIs driven against a scripted model, so that what we believe of them stays true."""
