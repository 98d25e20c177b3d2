"""An application that needs something that isn't installed."""

import no_such_package_for_hoopsnake  # noqa: F401

application = None
