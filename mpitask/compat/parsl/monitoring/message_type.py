"""`parsl.monitoring.message_type`."""

import enum


class MessageType(enum.Enum):
    """What a message of monitoring is about."""

    TASK_INFO = 0
    RESOURCE_INFO = 1
    WORKFLOW_INFO = 2
    NODE_INFO = 3
    BLOCK_INFO = 4
    WORKER_TASK_INFO = 5
