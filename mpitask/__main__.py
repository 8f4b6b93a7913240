"""`python -m mpitask`."""

from mpitask.early import end_on_interrupt

end_on_interrupt()

from mpitask.cli import main  # noqa: E402 - takes long enough to be interrupted

if __name__ == "__main__":
    main()
