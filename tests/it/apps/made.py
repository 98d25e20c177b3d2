"""An application that is made by a factory, and things that aren't applications."""

from wsgiref.validate import validator

number = 5


def create(greeting, *, loud=False):
    body = (greeting.upper() if loud else greeting).encode()

    @validator
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return application
