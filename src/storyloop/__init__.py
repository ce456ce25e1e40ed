"""Storyloop drives coding agents along a spec until every acceptance criterion is proven."""

__version__ = "0.1.0"
