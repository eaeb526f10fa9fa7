"""Its settings. What a server's test varies comes in by variables."""

import json
import os
from pathlib import Path

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["insider_otel_django"]
MIDDLEWARE = ["insider_otel_django.InsiderMiddleware", "django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "django_project.urls"
TEMPLATES = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [Path(__file__).parent / "templates"]}
]
USE_TZ = True
INSIDER_OTEL = json.loads(os.environ.get("DJANGO_INSIDER_OTEL", "{}"))
