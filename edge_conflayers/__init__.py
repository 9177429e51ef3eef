"""Makes one GGUF model generate faster by itself, and never changes its text."""


def __getattr__(name: str) -> str:
    """``__version__``, looked up when it is asked for: that takes longer than all else here, and a
    Ctrl-C meanwhile would be shown as a traceback."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("edge-conflayers")
    except PackageNotFoundError:  # a checkout that is not installed
        return "0+unknown"
