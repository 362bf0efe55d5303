"""The demo: the whole loop on real digits, with nothing but this machine."""

from visionloop.demo.run import run_demo

__all__ = ["run_demo"]
