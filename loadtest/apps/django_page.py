"""A Django site in one file: one view without a session, one template with a loop, usual middleware."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.template import engines
from django.urls import path

TEMPLATE = """<!doctype html>
<title>{{ title }}</title>
<h1>{{ title }}</h1>
<ul>{% for row in rows %}<li class="{% cycle 'odd' 'even' %}">
{{ forloop.counter }}. {{ row.name }}: {{ row.price|floatformat:2 }}</li>
{% endfor %}</ul>
"""
ROWS = [{"name": f"<Item {number}>", "price": number * 1.5} for number in range(20)]

# FastWSGI loads the module under a name of its own, and Django then imports it again as ROOT_URLCONF.
if not settings.configured:
    settings.configure(
        DEBUG=False,
        SECRET_KEY="only for measuring on the loopback interface",
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    )

application = get_wsgi_application()
PAGE = engines["django"].from_string(TEMPLATE)


def page(request):
    """Render the rows."""
    return HttpResponse(PAGE.render({"title": "Items", "rows": ROWS}, request))


urlpatterns = [path("", page)]
