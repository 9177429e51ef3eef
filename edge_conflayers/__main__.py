"""``python -m edge_conflayers``, and the installed command."""

import signal
import sys


def main() -> None:
    """Runs the command line. Ctrl-C is answered quietly while modules are still imported, and has
    no effect once everything is done."""
    try:
        from edge_conflayers.cli import main as command_line

        command_line(prog_name="edge-conflayers")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
