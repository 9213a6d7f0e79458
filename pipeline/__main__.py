"""`python -m pipeline COMMAND`."""

from interfaces.extras import packages_of

if __name__ == "__main__":
    with packages_of("server"):
        from pipeline.commands.dispatch import main
        from service.processes.process import leave

        code = main()
    # A pager may take its time.
    leave(code, patience_s=None)
