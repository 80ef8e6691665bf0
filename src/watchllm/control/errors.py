"""What the control plane refuses, and what can go wrong beneath it; each message says what to do next.

ControlError
├── NotFound            no such project, key or provider key
├── Forbidden           the role of who asks does not allow it
│   └── BeyondPlan      an organization gives itself what its plan does not
├── Invalid             a value of the wrong form
├── PricesUnusable      prices.toml cannot be understood
├── PlansUnusable       plans.toml cannot be understood, or lacks a plan that an organization has
│   └── OnlyKeysPublished  so what keys need was published, and projects wait
├── OtherInstallation   what is published here belongs to another database
├── DatabaseUnusable    cannot be opened or reached, or its schema is newer than this program
└── PublicationFailed   the change is saved, but proxies don't know of it yet
"""


class ControlError(Exception):
    """Base of all of them. `status` is the HTTP status that an API answers with."""

    status = 500


class NotFound(ControlError):
    status = 404


class Forbidden(ControlError):
    status = 403


class BeyondPlan(Forbidden):
    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting


class Invalid(ControlError):
    status = 400


class PricesUnusable(ControlError):
    pass


class PlansUnusable(ControlError):
    pass


class OnlyKeysPublished(PlansUnusable):
    pass


class DatabaseUnusable(ControlError):
    """`advice` says what to do where the cause is known; the message has it, too."""

    status = 503
    advice: str = ""


class OtherInstallation(ControlError):
    status = 503


class PublicationFailed(ControlError):
    """A change is saved, and not in force yet."""

    status = 503
    made: object = None
    """What the change gave: nobody may get to see it again, as the secret of a new key."""
