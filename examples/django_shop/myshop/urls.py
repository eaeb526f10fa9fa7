"""Pages of the shop."""

from django.urls import path
from insider_otel_django import health

from myshop import views

urlpatterns = [
    path("signup", views.signup),
    path("orders", views.order),
    path("catalog", views.sync_catalog),
    path("code", views.send_code),
    path("code/check", views.check_code),
    path("health/insider", health),
]
