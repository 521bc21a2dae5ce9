"""`klingel serve`, which is also how a server's process begins."""

# ruff: noqa: PLC0415 - client commands would else take as long to start as the whole service does

import gc


def serve() -> int:
    """Run Klingel. Its settings come from the environment and `.env`."""
    # Until it is ready there is no garbage worth a search among all that is loaded: 0.17 of the 1.2 s that this takes.
    gc.disable()
    try:
        from service.app import serve as run
        from service.configuration import load_server_settings

        return run(load_server_settings())
    finally:
        gc.enable()
