"""What the shop keeps."""

from __future__ import annotations

from datetime import datetime

from django.db import models


class Order(models.Model):
    """An order."""

    number: models.CharField[str, str] = models.CharField(max_length=20, unique=True)
    email: models.EmailField[str, str] = models.EmailField()
    sku: models.CharField[str, str] = models.CharField(max_length=20)
    price: models.FloatField[float, float] = models.FloatField()
    created: models.DateTimeField[datetime, datetime] = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        """Its number."""
        return self.number
