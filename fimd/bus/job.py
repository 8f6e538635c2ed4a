"""org.flatimage.Fim1.Job: long work, to watch and to cancel."""

from dbus_next.signature import Variant

from fimd.bus.declare import Call, Interface, method, prop, signal
from fimd.bus.options import Options, encode_path, plain_text
from fimd.jobs.job import Job, JobState
from fimd.jobs.jobs import Jobs

# ruff: noqa: N802 - D-Bus members are named in its own style


class JobInterface(Interface):
    """How far a job is, and what came of it. It stays for a minute after its end."""

    name = "org.flatimage.Fim1.Job"

    def __init__(self, job: Job, jobs: Jobs) -> None:
        self._job = job
        self._jobs = jobs

    @prop("s", constant=True)
    def Operation(self) -> str:
        """One of commit, create, add, remove, squash, export."""
        return self._job.operation

    @prop("ay", constant=True)
    def Subject(self) -> bytes:
        """The image or the file that it is about."""
        return encode_path(self._job.subject)

    @prop("s")
    def Phase(self) -> str:
        """What it does now: survey, pack, verify, append, or nothing yet."""
        return self._job.phase

    @prop("d")
    def Progress(self) -> float:
        """How far it is, from 0 to 1."""
        return self._job.progress

    @prop("t")
    def Bytes(self) -> int:
        """Bytes done in this phase."""
        return self._job.bytes

    @prop("t")
    def BytesTotal(self) -> int:
        """Bytes to do in this phase, 0 where nobody knows."""
        return self._job.total

    @prop("t")
    def Rate(self) -> int:
        """Bytes a second in this phase."""
        return self._job.rate

    @prop("s")
    def State(self) -> str:
        """One of running, succeeded, failed, cancelled."""
        return str(self._job.state)

    @prop("as")
    def Notes(self) -> list[str]:
        """Sentences for the user: what was left out, what was cleaned up."""
        return [plain_text(note) for note in self._job.notes]

    @prop("a{sv}")
    def Result(self) -> dict[str, Variant]:
        """What it made: path ay, offset t, size t, number u; or empty b, where nothing was."""
        kinds = {"offset": "t", "size": "t", "number": "u", "count": "u", "empty": "b"}
        result = {
            key: Variant(kinds[key], value)
            for key, value in self._job.result.items()
            if key in kinds
        }
        if "path" in self._job.result:
            result["path"] = Variant("ay", encode_path(self._job.result["path"]))
        return result

    @prop("(ss)")
    def Error(self) -> list[str]:
        """Name, without its prefix, and message of the error that ended it; empty for none."""
        return list(self.outcome()[1:])

    @method("a{sv} options")
    async def Cancel(self, _call: Call, options: dict[str, Variant]) -> None:
        """End it, so that everything is as before; nothing happens where it has ended."""
        Options(options).finish()
        self._jobs.cancel(self._job)

    @signal("b success, s error, s message")
    def Completed(self) -> None:
        """It has ended; `error` is the name of an error without its prefix."""

    def outcome(self) -> tuple[bool, str, str]:
        """Return the arguments of Completed."""
        error = self._job.error
        if self._job.state is JobState.SUCCEEDED or error is None:
            return True, "", ""
        return False, error.name, plain_text(str(error))
