"""Checks of a cluster: what would stop a round there, found before one starts."""
