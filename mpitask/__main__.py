"""`python -m mpitask`."""

from mpitask.cli import main

if __name__ == "__main__":
    main()
