"""The server: the extension built from src/."""

__all__ = ["main"]

def main(argv: list[str]) -> int:
    """Runs the server with these arguments (without the program's name) until it is stopped; the exit status."""
