"""A page that may be cached, and one that holds its thread for 200 ms."""

import page10k
import sleep200


def application(environ, start_response):
    """By path."""
    page = sleep200 if environ["PATH_INFO"] == "/sleep" else page10k
    return page.application(environ, start_response)
