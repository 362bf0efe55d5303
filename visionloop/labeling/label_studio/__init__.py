"""Label Studio as a labelling tool: projects, tasks and answers, through label-studio-sdk."""

from __future__ import annotations

from visionloop.labeling.label_studio.checking import check
from visionloop.labeling.label_studio.deleting import delete_tasks
from visionloop.labeling.label_studio.provider import LabelStudioProvider
from visionloop.labeling.label_studio.webhooks import ensure_webhook

__all__ = ["LabelStudioProvider", "check", "delete_tasks", "ensure_webhook"]
