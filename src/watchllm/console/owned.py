"""What a signed-in user's organization has, as the pages ask for it."""

from watchllm.console.limit_view import Holder
from watchllm.console.services import Console
from watchllm.console.told import PLANS_UNUSABLE
from watchllm.control.errors import PlansUnusable
from watchllm.control.organization_plane import OrganizationPlane
from watchllm.control.organizations import Organization, in_force
from watchllm.control.users import User
from watchllm.domain.limits import Limits


def own_of(console: Console, user: User) -> OrganizationPlane:
    """What this user may see and change; the audit log names him by his address."""
    return OrganizationPlane(console.plane.acting_as(f"console:{user.email}"), user.organization_id, user.role)


def organization_holder(own: OrganizationPlane, organization: Organization) -> tuple[Holder, str]:
    """Its limits in force and which of them its plan gives, and why the plan's are not known, if so."""
    try:
        plan = own.plans(organization).get(organization.plan)
    except PlansUnusable:
        # The publisher logs why.
        return Holder(
            "Organization", organization.limits
        ), f"{PLANS_UNUSABLE} Proxies keep to what was published before."
    if plan is None:
        return (
            Holder("Organization", organization.limits),
            f"No plan is named {organization.plan} any more. Proxies keep to what was published before.",
        )
    limits = in_force(organization, plan)
    of_plan = frozenset(
        name for name in Limits.__struct_fields__ if getattr(limits, name) != getattr(organization.limits, name)
    )
    return Holder("Organization", limits, organization.plan, of_plan), ""
