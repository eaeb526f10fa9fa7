"""What an error reporter that sends the variables of frames would say of ours: Sentry does by default, others can."""

from __future__ import annotations

from collections.abc import Iterator


def variables_of_ours(error: BaseException) -> Iterator[str]:
    """The variables of our frames in what is told of an error, and of those that it came from.

    Args:
        error: The error, as an app catches it.
    """
    each: BaseException | None = error
    while each is not None:
        entry = each.__traceback__
        while entry is not None:
            frame, entry = entry.tb_frame, entry.tb_next
            # That of what dataclasses write, too: its globals are those of the class.
            module = str(frame.f_globals.get("__name__"))
            if module.partition(".")[0].startswith("insider_otel"):
                for name, value in frame.f_locals.items():
                    yield f"{module}: {frame.f_code.co_name}: {name} = {value!r}"
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def assert_frames_hold_none_of(secrets: tuple[str, ...], error: BaseException) -> None:
    """Assert that no variable of a frame of ours shows a secret, and neither does what is said.

    Args:
        secrets: The secrets.
        error: The error, as an app catches it.
    """
    shown = [variable for variable in variables_of_ours(error) if any(secret in variable for secret in secrets)]
    assert not shown, "\n".join(shown)
    assert not any(secret in str(error) for secret in secrets), str(error)
