"""The command line from a checkout: ``python cli.py run`` is ``dual-bench run``."""

from dual_bench.cli import app

if __name__ == "__main__":
    app()
