"""How people's browsers get the images that they are asked about."""
