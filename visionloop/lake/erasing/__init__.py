"""Erases samples: their rows, vectors, pictures and files, from every version of a lake."""
