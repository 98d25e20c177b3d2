"""An application that fails while it is imported."""

raise RuntimeError("the database settings are missing")
