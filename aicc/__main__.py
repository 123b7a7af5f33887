"""`python -m aicc` is the command `aicc`."""

from aicc.cli import main

if __name__ == "__main__":
    main()
