"""For how long rows of usage are kept: as the operator set it, and less where an organization's plan keeps less."""

from sqlalchemy import select

from watchllm.configuration import Configuration
from watchllm.control import plans
from watchllm.control.database import Database
from watchllm.control.tables import organizations, projects
from watchllm.journal.recorder import Retention


def retention_of(configuration: Configuration, database: Database) -> Retention:
    """As plans, organizations and projects are now. Raises DatabaseUnusable and PlansUnusable."""
    days = configuration.usage_days
    known = plans.plans(configuration.home).items()
    shorter = {
        name: plan.log_days
        for name, plan in known
        if plan.log_days is not None and (days is None or plan.log_days < days)
    }
    query = (
        select(projects.c.id, organizations.c.plan)
        .join(organizations, organizations.c.id == projects.c.organization_id)
        .where(organizations.c.plan.in_(shorter))
    )
    with database.reading() as connection:
        return Retention(days, {project: shorter[plan] for project, plan in connection.execute(query)})
