"""`python -m preprocess`, the same as the console command."""

from preprocess.cli import main

if __name__ == "__main__":
    main()
