"""Which xlatent this is."""

from importlib.metadata import version

__version__ = version("xlatent")
SOFTWARE = f"xlatent {__version__}"
"""As tables, stores and services are told."""
