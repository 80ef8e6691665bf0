"""The rotation of the master secret: its files, the database and the snapshot in step."""

import msgspec

from watchllm.compose.control import open_control_plane
from watchllm.configuration import Configuration
from watchllm.control.errors import Invalid
from watchllm.control.plane import ControlPlane
from watchllm.domain.sealing import MINIMUM_LENGTH, Sealer
from watchllm.stores import home


class Rotation(msgspec.Struct, frozen=True):
    """`provider_keys` were sealed anew. `is_configured`: the secret is set by the operator, who has to set the new one
    wherever it is; else it is in the home folder."""

    provider_keys: int
    is_configured: bool


def rotate(configuration: Configuration, new: str | None) -> Rotation:
    """Seal everything under `new`.

    None: where the secret lies in the home folder, one that is made here; where it is configured, the configured one,
    everything being sealed under the configured previous one. A rotation that something ended half way is completed
    first. Raises Invalid besides what `open_control_plane` and `ControlPlane.rotate_secret` raise.
    """
    if new is not None and len(new) < MINIMUM_LENGTH:
        raise Invalid(
            f"the master secret needs at least {MINIMUM_LENGTH} characters; `openssl rand -base64 32` makes one"
        )
    if configuration.secret_key is not None:
        with open_control_plane(configuration) as plane:
            return _rotate_configured(plane, configuration.secret_key, new)
    with home.rotating_secret(configuration.home), open_control_plane(configuration) as plane:
        return _rotate_file(configuration, plane, new)


def _rotate_configured(plane: ControlPlane, current: str, new: str | None) -> Rotation:
    target = Sealer(current if new is None else new)
    if plane.secret_in_force().canary == target.canary:
        raise Invalid(
            "everything is sealed under this secret already. Give a new one on stdin or with --from-env; or, without a "
            "moment in which a process does not know it, start all processes with the new one as WATCHLLM_SECRET_KEY "
            "and the old one as WATCHLLM_SECRET_KEY_PREVIOUS, then run this again"
        )
    return Rotation(plane.rotate_secret(target), is_configured=True)


def _rotate_file(configuration: Configuration, plane: ControlPlane, new: str | None) -> Rotation:
    folder = configuration.home
    current = Sealer(home.master_secret(folder, None))
    if plane.secret_in_force().canary != current.canary:
        if new is not None:
            raise Invalid("an earlier rotation is not complete; run `watchllm secret rotate` without a secret first")
        target = current
    else:
        if new is not None and Sealer(new).canary == current.canary:
            raise Invalid("everything is sealed under this secret already; give a new one")
        target = Sealer(home.replace_secret(folder, new))
    count = plane.rotate_secret(target)
    home.forget_previous_secret(folder)
    return Rotation(count, is_configured=False)
