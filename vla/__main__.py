"""``python -m vla`` is the command ``vla``."""

from vla.cli import main

if __name__ == "__main__":
    main()
