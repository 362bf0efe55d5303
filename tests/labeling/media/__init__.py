"""Tests of how browsers get images."""
