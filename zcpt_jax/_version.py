"""The version, read by the build without importing the library."""

__version__ = "0.1.0"
