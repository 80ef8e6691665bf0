"""What people and scripts are told of what went wrong in the control plane. Errors that name places of this
installation, or what belongs to others, are told by a sentence; what they say is for the log alone."""

import logging

from watchllm.control.errors import (
    ControlError,
    DatabaseUnusable,
    OtherInstallation,
    PlansUnusable,
    PricesUnusable,
    PublicationFailed,
)

PLANS_UNUSABLE = "The plans cannot be used now; the log of the console says why."
_SENTENCES: dict[type[ControlError], str] = {
    DatabaseUnusable: "The database is not available; `watchllm doctor` says more. Traffic through the proxies goes "
    "on.",
    PublicationFailed: "The change is saved, and proxies will know of it as soon as it can be published; the log of "
    "the console says why it could not be yet.",
    OtherInstallation: "Nothing can be published from here; the log of the console says why.",
    PlansUnusable: f"{PLANS_UNUSABLE} Nothing was changed.",
    PricesUnusable: "The prices cannot be used now; the log of the console says why. Nothing was changed.",
}

_log = logging.getLogger(__name__)


def told(error: ControlError) -> str:
    """The sentence for an error, which is logged, or its own message where that names nothing of others."""
    for kind, sentence in _SENTENCES.items():
        if isinstance(error, kind):
            _log.error("%s: %s", kind.__name__, error)
            return sentence
    return str(error)
