"""`python -m service`."""

from interfaces.extras import packages_of

if __name__ == "__main__":
    with packages_of("server"):
        from service.cli import main
        from service.processes.process import leave

        try:
            code = main()
        except SystemExit as stopped:
            # A signal during the start; a model that does not come to an end may still run.
            code = stopped.code if isinstance(stopped.code, int) else 1
    leave(code)
