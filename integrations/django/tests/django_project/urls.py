"""Its pages."""

from django.contrib import admin
from django.urls import path
from insider_otel_django import health

from django_project import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("signup", views.signup),
    path("signup/async", views.signup_async),
    path("bare", views.bare),
    path("async-to-thread", views.async_to_thread),
    path("thread-to-async", views.thread_to_async),
    path("stream", views.stream),
    path("stream/async", views.stream_async),
    path("stream/tidy", views.stream_and_tidy),
    path("file", views.file),
    path("failing", views.failing),
    path("failing/async", views.failing_async),
    path("failing/deferred", views.failing_deferred),
    path("broken", views.broken),
    path("hasty", views.hasty),
    path("hasty/async", views.hasty_async),
    path("hasty/class", views.Hasty.as_view()),
    path("hasty/class/async", views.HastyAsync.as_view()),
    path("patient", views.patient),
    path("order", views.order),
    path("health/insider/", health),
]
