"""Tells people and programs of new flags, of decisions and of stages that failed."""
