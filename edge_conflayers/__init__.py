"""Makes one GGUF model generate faster by itself, and never changes its text."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("edge-conflayers")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"
