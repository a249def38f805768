from opskit.tasks import namespace

__all__ = ["namespace"]
