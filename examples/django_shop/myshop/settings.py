"""Settings of the shop."""

import os
from pathlib import Path

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "invented, for a demonstration")
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DATABASE", Path(__file__).parents[1] / "shop.sqlite3"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "myshop.urls"
USE_TZ = True

INSTALLED_APPS = ["insider_otel_django", "myshop"]
# No sessions, no cookies: what is posted here needs no token against forgery.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "insider_otel_django.InsiderMiddleware",
    "django.middleware.common.CommonMiddleware",
]

# No page takes longer than three seconds because of Insider, and a failed call that no view handles is no 500.
INSIDER_OTEL = {"REQUEST_DEADLINE": 3.0, "ERROR_RESPONSES": True}

# The shop's own: its keys at Insider, and where to send instead of Insider's hosts (a fake).
INSIDER_PARTNER = os.environ.get("SHOP_INSIDER_PARTNER", "yourshop")
INSIDER_TOKEN = os.environ.get("SHOP_INSIDER_TOKEN", "your-token")
INSIDER_AUTH_KEY = os.environ.get("SHOP_INSIDER_AUTH_KEY", "your-key")
INSIDER_URL = os.environ.get("SHOP_INSIDER_URL")
