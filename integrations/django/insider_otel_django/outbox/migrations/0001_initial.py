"""The outbox's tables, as ``makemigrations`` writes them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Makes them."""

    initial = True

    dependencies = []  # noqa: RUF012  (as Django writes it)

    operations = [  # noqa: RUF012
        migrations.CreateModel(
            name="OutboxPool",
            fields=[
                ("name", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("free_at", models.FloatField(default=0)),
                ("turn", models.BigIntegerField(default=0)),
            ],
            options={
                "verbose_name": "pool",
                "db_table": "insider_outbox_pool",
            },
        ),
        migrations.CreateModel(
            name="OutboxJob",
            fields=[
                ("number", models.BigAutoField(primary_key=True, serialize=False)),
                ("job_id", models.CharField(max_length=64, unique=True, verbose_name="job")),
                (
                    "state",
                    models.CharField(
                        choices=[("waiting", "waiting"), ("dead", "dead letter")], default="waiting", max_length=8
                    ),
                ),
                ("operation", models.CharField(max_length=100)),
                ("product", models.CharField(max_length=100)),
                ("pool", models.CharField(max_length=255)),
                ("content", models.BinaryField()),
                ("account", models.TextField(null=True)),
                ("line", models.CharField(max_length=64, null=True)),
                ("context", models.JSONField(default=dict)),
                ("created", models.FloatField()),
                ("due", models.FloatField()),
                ("expires", models.FloatField()),
                ("attempts", models.IntegerField()),
                ("deliveries", models.IntegerField()),
                ("ambiguous_since", models.FloatField(null=True)),
                ("verdict", models.JSONField(default=dict)),
                ("stopped", models.CharField(max_length=64, null=True)),
                ("token", models.CharField(max_length=64, null=True)),
                ("leased_until", models.FloatField(default=0)),
                ("sent_at", models.FloatField(null=True)),
            ],
            options={
                "verbose_name": "deferred call",
                "db_table": "insider_outbox_job",
                "indexes": [
                    models.Index(fields=["state", "pool", "due"], name="insider_outbox_due"),
                    models.Index(fields=["state", "created"], name="insider_outbox_created"),
                    models.Index(fields=["line", "number"], name="insider_outbox_line"),
                ],
            },
        ),
    ]
