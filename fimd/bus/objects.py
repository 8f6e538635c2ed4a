"""Keeps the objects on the bus in step with what the daemon has."""

from collections.abc import Callable
from typing import TypeVar

from fimd.base.observe import Collection, Event
from fimd.bus.declare import Interface
from fimd.bus.image import ImageInterface
from fimd.bus.instance import InstanceInterface
from fimd.bus.job import JobInterface
from fimd.bus.layer import LayerInterface
from fimd.bus.paths import image_path, instance_path, job_path, layer_path
from fimd.bus.server import ObjectServer
from fimd.images.images import Images
from fimd.instances.instances import Instances
from fimd.jobs.changes import Changes
from fimd.jobs.job import Job
from fimd.jobs.jobs import Jobs
from fimd.layers.shared import Layers

T = TypeVar("T")


def publish(
    server: ObjectServer,
    layers: Layers,
    images: Images,
    instances: Instances,
    changes: Changes,
    jobs: Jobs,
) -> None:
    """Export every layer, image, instance and job, now and as they come, change and go."""
    _follow(server, layers.mounted, layer_path, LayerInterface)
    _follow(
        server,
        images.opened,
        image_path,
        lambda image: ImageInterface(image, images, changes),
    )
    _follow(server, jobs.current, job_path, lambda job: JobInterface(job, jobs))
    jobs.on_completed = lambda job: _announce(server, job, jobs)
    _follow(
        server,
        instances.running,
        instance_path,
        lambda instance: InstanceInterface(instance, instances),
    )


def _announce(server: ObjectServer, job: Job, jobs: Jobs) -> None:
    interface = JobInterface(job, jobs)
    server.emit(job_path(job.id), interface, "Completed", *interface.outcome())


def _follow(
    server: ObjectServer,
    things: Collection[T],
    path: Callable[[str], str],
    interface: Callable[[T], Interface],
) -> None:
    def on_event(event: Event, key: str, thing: T) -> None:
        if event is Event.ADDED:
            server.export(path(key), interface(thing))
        elif event is Event.CHANGED:
            server.properties_changed(path(key))
        else:
            server.unexport(path(key))

    things.subscribe(on_event)
