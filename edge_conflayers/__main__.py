"""``python -m edge_conflayers``."""

from edge_conflayers.cli import main

main(prog_name="edge-conflayers")
