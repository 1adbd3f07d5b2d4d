"""The version of the library: of the package, of its files, and of the pages."""

__version__ = "0.1.0"
