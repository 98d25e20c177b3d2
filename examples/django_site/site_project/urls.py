"""Paths of the example site."""

from django.contrib import admin
from django.urls import path

from notes import views

urlpatterns = [
    path("", views.hello),
    path("page", views.page),
    path("count", views.count),
    path("notes", views.notes),
    path("upload", views.upload),
    path("stream", views.stream),
    path("download", views.download),
    path("fail", views.fail),
    path("admin/", admin.site.urls),
]
