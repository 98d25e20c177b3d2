"""About 10 KB of JSON, serialised anew for each request, as an API would."""

import json

from content_length import headers

# Rows of about 95 bytes each.
ROWS = [
    {"id": number, "name": f"Item number {number}", "price": number * 1.25, "tags": ["one", "two"], "active": True}
    for number in range(105)
]


def application(environ, start_response):
    """Serialise the rows."""
    body = json.dumps({"items": ROWS}).encode()
    start_response("200 OK", headers("application/json", len(body)))
    return [body]
