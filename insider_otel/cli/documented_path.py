"""What Insider documents in place of a path that it does not."""

from __future__ import annotations

from difflib import get_close_matches

from insider_otel.api.operations import Operation, find, operations

_LIKE_ON_ANOTHER_HOST = 0.9
"""How alike paths of two hosts have to be, of 1, for one to be meant: many begin with the same words."""


def path_remark(called: Operation, method: str, host: str, path: str) -> str | None:
    """What to say of the path of a call.

    Args:
        called: What ``find`` returns for it.
        method: HTTP method, upper case.
        host: An Insider host in lower case.
        path: Path without the query.

    Returns:
        That no operation is documented there, or none that is spelt so, and which may be meant; None if the path is
        documented as it stands.
    """
    if called.path:
        if _is_spelt_as_documented(called, path):
            return None
        # It is found, for it is clear what is meant; Insider may see that otherwise.
        return f"no documented operation has this very path: {_did_you_mean(called, method, host)}"
    methods = {each for operation in operations() for each in operation.methods}
    for other in sorted(methods):
        answering = find(other, host, path)
        if answering is not None and answering.path:
            return f"no documented operation answers {method} at this path: {_did_you_mean(answering, method, host)}"
    nearest = _nearest(called.product, path)
    question = "" if nearest is None else f": {_did_you_mean(nearest, method, host)}"
    return f"no documented operation has this path{question}"


def _is_spelt_as_documented(operation: Operation, path: str) -> bool:
    if "{" in operation.path:
        return "//" not in path and not path.endswith("/")
    return path == operation.path


def _nearest(product: str, path: str) -> Operation | None:
    by_path: dict[str, Operation] = {}
    for operation in operations():
        by_path.setdefault(operation.path.lower(), operation)
    of_product = {operation.path.lower(): operation for operation in operations() if operation.product == product}
    close = get_close_matches(path.lower(), of_product, n=1)
    if close:
        return of_product[close[0]]
    close = get_close_matches(path.lower(), by_path, n=1, cutoff=_LIKE_ON_ANOTHER_HOST)
    return by_path[close[0]] if close else None


def _did_you_mean(meant: Operation, method: str, host: str) -> str:
    """Asks for an endpoint, with the method that was used if it answers that."""
    at_path = [each for each in operations() if (each.host, each.path) == (meant.host, meant.path)]
    methods = [each for operation in at_path for each in operation.methods]
    shown = method if method in methods else "/".join(methods)
    address = meant.path if meant.host == host else f"https://{meant.host}{meant.path}"
    return f"did you mean {shown} {address}?"
