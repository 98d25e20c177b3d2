"""Content-Length for the servers that don't work it out themselves.

PEP 3333 lets a server add the length of a one-element list. bjoern and uWSGI don't: bjoern then sends chunks, the last
of which waits for a delayed ACK (40 ms); uWSGI can't keep the connection. Both are measured with the application giving
the length (`LOADTEST_CONTENT_LENGTH=1`), decided at import so that it costs a request nothing; all others work it out.
"""

import os

GIVEN = os.environ.get("LOADTEST_CONTENT_LENGTH") == "1"


def headers(content_type, length):
    """The header list of a response whose length is known."""
    fields = [("Content-Type", content_type)]
    if GIVEN:
        fields.append(("Content-Length", str(length)))
    return fields
