"""`WovePlugin`: lets a worker that a project has already execute tasks of weaves, too."""

from temporalio.plugin import SimplePlugin

from wove_temporal.tasks import WoveWorkflow, execute


class WovePlugin(SimplePlugin):
    """Adds Wove's activity and workflow to those of a worker::

    Worker(client, task_queue="reports", activities=[...], plugins=[WovePlugin()])
    """

    def __init__(self) -> None:
        super().__init__("wove", activities=[execute], workflows=[WoveWorkflow])
