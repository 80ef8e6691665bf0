"""The `watchllm` command. `proxy` and `up` start without the command-line library: its import takes as long as a whole
start of the proxy may."""

import gc
import sys
from io import TextIOWrapper


def main() -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("proxy", "up"):
        gc.disable()  # a collection during the imports costs a tenth of a start; a running process collects as usual
        from watchllm.cli.fast_start import start

        code = start(arguments[0], arguments[1:])
        if code is not None:
            sys.exit(code)
        gc.enable()
    # What a command imports stays: at its usual pace the collector takes a fifth of a command's time to look at it.
    gc.set_threshold(20_000, 50, 100)
    from watchllm.cli.app import app

    if isinstance(sys.stdout, TextIOWrapper):
        # A name that the locale has no characters for is no reason not to list it.
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
