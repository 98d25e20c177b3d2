"""Views that real sites have: a template with a query, a session, a form, an upload, a streamed download."""

import hashlib
import tempfile
import threading

from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from notes.models import Note

LINE = b"0123456789abcdef" * 64
BYTES_MAX = 1024 * 1024 * 1024


@require_safe
def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Hello, World!", content_type="text/plain")


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """A template, a query and the session's user; ConditionalGetMiddleware gives it an ETag and answers 304."""
    return render(request, "notes/page.html", {"notes": Note.objects.order_by("-id")[:20]})


@require_GET
def count(request: HttpRequest) -> HttpResponse:
    """How often this browser has been here; the session lies in the database."""
    request.session["count"] = request.session.get("count", 0) + 1
    return JsonResponse({"count": request.session["count"], "thread": threading.current_thread().name})


@require_http_methods(["GET", "HEAD", "POST"])
def notes(request: HttpRequest) -> HttpResponse:
    """A form, and what it adds; its CSRF token is checked."""
    if request.method != "POST":
        return render(request, "notes/form.html")
    Note.objects.create(text=request.POST["text"])
    return redirect("/page")


@csrf_exempt
@require_POST
def upload(request: HttpRequest) -> HttpResponse:
    """Size and SHA-256 of the form field `file`."""
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for block in file.chunks():
        digest.update(block)
    return JsonResponse({"name": file.name, "size": file.size, "sha256": digest.hexdigest()})


def _bytes_asked_for(request: HttpRequest) -> int:
    return max(0, min(int(request.GET.get("bytes", "1048576")), BYTES_MAX))


@require_safe
def stream(request: HttpRequest) -> HttpResponse:
    """`?bytes=N` from a generator, without a Content-Length."""
    size = _bytes_asked_for(request)
    blocks = (LINE[: size - start] for start in range(0, size, len(LINE)))
    return StreamingHttpResponse(blocks, content_type="application/octet-stream")


@require_safe
def download(request: HttpRequest) -> HttpResponse:
    """`?bytes=N` from a file, which Django hands to `wsgi.file_wrapper`."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the response
    size = _bytes_asked_for(request)
    for start in range(0, size, len(LINE)):
        file.write(LINE[: size - start])
    file.seek(0)
    return FileResponse(file, as_attachment=True, filename="numbers.txt")


@require_GET
def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("this view always fails")
