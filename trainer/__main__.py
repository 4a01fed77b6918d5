"""`python -m trainer`, the same as the console command."""

from trainer.cli import main

if __name__ == "__main__":
    main()
