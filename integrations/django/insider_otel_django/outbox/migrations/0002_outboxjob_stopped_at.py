"""When a job was given up, as ``makemigrations`` writes it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds it. Workers of the version before may go on meanwhile."""

    dependencies = [("insider_outbox", "0001_initial")]  # noqa: RUF012  (as Django writes it)

    operations = [  # noqa: RUF012
        migrations.AddField(
            model_name="outboxjob",
            name="stopped_at",
            field=models.FloatField(null=True),
        ),
        migrations.AddIndex(
            model_name="outboxjob",
            index=models.Index(fields=["state", "stopped_at"], name="insider_outbox_stopped"),
        ),
    ]
