"""Geometry of many vectors: exact distances, cells, nearest neighbours, near pairs."""
