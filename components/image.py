"""The one image that every component runs in."""

from visionloop import __version__, environment

# The release's own image; VISIONLOOP_IMAGE or `visionloop compile --image` names another.
RELEASE = f"ghcr.io/visionloop/visionloop:{__version__}"
IMAGE = environment.image() or RELEASE
