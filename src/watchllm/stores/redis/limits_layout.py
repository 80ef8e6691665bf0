"""Limits in Redis: what its keys hold. The scripts that read and change them: limits_scripts.py.

All keys of an organization share a hash tag, so that one script sees key, project and organization at one moment and a
cluster keeps them on one node. Time is Redis' own, whatever the clocks of the proxies say.

    watchllm:{ORG}:account          hash: all that must not be lost by halves
        names                       series of the proxies that joined
        j|S                         the incarnation under which series S joined
        u|S                         the number of the uses of minutes that S told last: told again, they do not count
        L|SUBJECT|SLOT              what the database says was spent: `period nanos requests`
        P|SUBJECT|SLOT              what the proxies say was spent beyond that: the sum of all segments
        q|S|N  qh|S  qt|S           segments of S that the database has not counted yet, oldest first
        p|S                         the place in S up to which the database has counted
        ready, awaited, grace       whether both are known, or who has still to say what it knows, and until when
        run                         the run of the server that all of this is of: what another one brings back, from
                                    a file or as a replica, is of the past, and told anew
    watchllm:{ORG}:held|S           hash: what S holds, gone when S is: j, alive, h|SUBJECT nanos, k|SUBJECT requests of
                                    the month, c|SUBJECT places; ks|… and cs|… say how much of that S can give back
    watchllm:{ORG}:w|KIND|SUBJECT   hash: a minute's use by bucket of time; s its sum, o and l oldest and last bucket,
                                    x what is in slices that are not used up, until y
    watchllm:{ledger}:wanted        organizations whose accounts a recorder is to write
    watchllm:{ledger}:kept          those whose accounts are written
    watchllm:{ledger}:places        hash: series → the place up to which it is counted in all accounts

SLOT is `t`, `m0` to `m2` or `d0` to `d3`: a period takes the place of one that is over. A bucket of a minute counts
until a minute after its end, so nothing counts for less than a minute.
"""

from __future__ import annotations

from watchllm.domain.ledger import Place

CHANNEL = b"watchllm:limits"
"""Tells of an organization whose account was begun anew: everybody joins it."""
WANTED = b"watchllm:{ledger}:wanted"
KEPT = b"watchllm:{ledger}:kept"
PLACES = b"watchllm:{ledger}:places"

LOST, UNKNOWN, REFUSED, DONE = 0, 1, 2, 3
"""What a script says first: join (again); the account is not known yet; a bound is reached; done."""

FINISHED = "~"
"""After every place of a series."""


def prefix_of(organization: str) -> bytes:
    return b"watchllm:{%b}:" % organization.encode()


def account_of(organization: str) -> bytes:
    return prefix_of(organization) + b"account"


def place_text(place: Place) -> str:
    """Places in the order of their texts."""
    return FINISHED if place.finished else f"{place.sequence:012d}.{place.offset:020d}"
