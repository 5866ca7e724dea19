"""`python -m ssl_app`, which is what torchrun starts."""

from ssl_app.cli import main

if __name__ == "__main__":
    main()
