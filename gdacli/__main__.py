"""`python -m gdacli`."""

from gdacli.cli import main

if __name__ == "__main__":
    main()
