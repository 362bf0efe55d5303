"""Tests of annotated sets, and of the lake's way in and out."""
