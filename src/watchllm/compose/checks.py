"""What `doctor` found out about one thing."""

import msgspec

OK, WARNING, FAILED = "ok", "warning", "failed"


class Check(msgspec.Struct, frozen=True):
    """`status` is ok, warning or failed; `advice` says what to do, empty when nothing is."""

    name: str
    status: str
    detail: str
    advice: str = ""
