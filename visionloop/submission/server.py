"""A Kubeflow Pipelines server: what a person or a CI job asks of it."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop import environment
from visionloop.errors import InputError
from visionloop.submission import runs, schedules
from visionloop.submission.access import Access
from visionloop.submission.connecting import connect
from visionloop.submission.following import End, follow
from visionloop.submission.logs import Logs
from visionloop.submission.packages import task_names
from visionloop.submission.reasons import Reason
from visionloop.submission.schedules import Schedule
from visionloop.submission.starting import fill_from_lake
from visionloop.submission.versions import Version, experiment, known_experiment, upload
from visionloop.submission.work import Work, prepare

if TYPE_CHECKING:
    from visionloop.config import LoopConfig


def _quiet(line: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Run:
    """A run on a server.

    Attributes:
        run_id: Its id.
        name: Its name.
        pipeline: The pipeline.
        version: Name of the pipeline's version.
        uploaded: Whether that version was new to the server.
        attached: Whether the run was started by an earlier or a concurrent job with the same key.
        state: Its state when this was asked.
        url: Its page in the UI; empty where no UI is known.
        task_names: What its tasks are called, by the server's key.
        namespace: Namespace of its pods on a server that many users share, empty elsewhere.
    """

    run_id: str
    name: str
    pipeline: str
    version: str
    uploaded: bool
    attached: bool
    state: str
    url: str
    task_names: dict[str, str] = field(default_factory=dict)
    namespace: str = ""


class Server:
    """A Kubeflow Pipelines server, signed in to.

    Every method raises `visionloop.submission.ServerError` when the server refuses or does not
    answer. What only asks is asked again for some seconds; what is to be made is looked for before
    it is asked for again, so that nothing is made twice.

    Args:
        client: What `visionloop.submission.connecting.connect` returned.
        host: Address of the API, for errors.
        ui: Address of the UI, empty where there is none.
        namespace: Namespace on a server that many users share, empty elsewhere.
    """

    def __init__(self, client: Any, *, host: str, ui: str, namespace: str) -> None:
        self.client = client
        self.host, self.ui, self.namespace = host, ui, namespace

    @classmethod
    def connect(
        cls, host: str = "", *, namespace: str = "", ca_file: str = "", access: Access | None = None
    ) -> Server:
        """Find a server and sign in.

        Args:
            host: Address of the API; empty takes ``KF_PIPELINES_ENDPOINT``, else the cluster that
                this process runs in, else the one that kubectl speaks to.
            namespace: Namespace on a server that many users share; one for a single user has
                none, and it is ignored there.
            ca_file: Certificate authority of the server; empty takes that of the access.
            access: How to sign in; None takes what the environment holds.

        Raises:
            InputError: There is no server to be found, its address is none, or a file that was
                named is missing.
        """
        shown = access or Access.from_environment()
        if ca_file:
            shown = Access(shown.token, shown.token_file, shown.cookie, ca_file)
        host = host or environment.kfp_endpoint()
        if host and "://" not in host:
            host = f"https://{host}"
        host = host.rstrip("/")
        ui = (environment.kfp_ui() or host).rstrip("/")
        client = connect(host, shown)
        # A server for one user refuses every request that names a namespace.
        shared = bool(client.get_kfp_healthz().multi_user)
        return cls(client, host=host, ui=ui, namespace=namespace if shared else "")

    @property
    def many_users(self) -> bool:
        """Whether many users share the server, so that everything has a namespace."""
        return bool(self.client.get_kfp_healthz().multi_user)

    def submit(
        self,
        pipeline: str,
        config: str | Path,
        *,
        settings: Iterable[str] = (),
        experiment: str = "visionloop",
        image: str = "",
        name: str = "",
        once: str = "",
        service_account: str = "",
        pipeline_root: str = "",
    ) -> Run:
        """Start a run.

        Args:
            pipeline: Name of the pipeline, for example ``round``.
            config: Path, URI or text of a ``loop.yaml``.
            settings: ``KEY=VALUE`` each: parameters of the pipeline or fields of the configuration.
            experiment: Name of the experiment; it is made when it is not there.
            image: Image of every task; empty takes the configuration's, else the release's.
            name: Name of the run; empty makes one of the pipeline, and the time or the key.
            once: A key that makes the run one of its kind, for example the CI run's id: a job that
                starts again attaches to the run that it started, unless that failed.
            service_account: Kubernetes service account; empty takes the configuration's.
            pipeline_root: Where artifacts go; empty takes the server's.

        Returns:
            The run.

        Raises:
            InputError: The configuration or a name is wrong.
        """
        with tempfile.TemporaryDirectory() as folder:
            work = prepare(pipeline, config, folder, settings=settings, image=image)
            return self.start(
                work,
                experiment=experiment,
                name=name,
                once=once,
                service_account=service_account,
                pipeline_root=pipeline_root,
            )

    def start(
        self,
        work: Work,
        *,
        experiment: str = "visionloop",
        name: str = "",
        once: str = "",
        service_account: str = "",
        pipeline_root: str = "",
    ) -> Run:
        """Start a run of what `prepare` compiled.

        Args:
            work: The compiled pipeline with its configuration.
            experiment: As in `submit`, like the others.
            name: Name of the run.
            once: A key that makes the run one of its kind.
            service_account: Kubernetes service account.
            pipeline_root: Where artifacts go.

        Returns:
            The run.

        Raises:
            InputError: The key is not one word, or belongs to a run of something else.
        """
        if once.split() != [once] and once:
            raise InputError(
                f"the key {once!r} is not one word",
                where="--once",
                remedy="Give a word without spaces, for example the commit or the CI run's id",
            )
        arguments = dict(work.arguments)
        fill_from_lake(work.package.pipeline, work.config, arguments)
        version = self.upload(work)
        namespace = self.namespace_for(work.config)
        stamp = once or time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        request = runs.Request(
            version=version,
            experiment_id=self.experiment(experiment, namespace),
            name=name or f"{work.package.name} {stamp}",
            arguments=arguments,
            key=once or secrets.token_hex(8),
            only_once=bool(once),
            pipeline_root=pipeline_root,
            service_account=service_account or work.config.cluster.service_account,
        )
        run, attached = runs.start(self.client, request, where=self.host)
        return Run(
            run_id=str(run.run_id),
            name=request.name,
            pipeline=work.package.pipeline,
            version=version.name,
            uploaded=version.uploaded,
            attached=attached,
            state=str(run.state or "PENDING"),
            url=self.url(str(run.run_id)),
            task_names=task_names(work.package.path),
            namespace=namespace,
        )

    def upload(self, work: Work) -> Version:
        """Bring a compiled pipeline to the server, unless its content is there."""
        namespace = self.namespace_for(work.config)
        return upload(self.client, work.package, namespace=namespace, where=self.host)

    def follow(
        self,
        run: Run | str,
        *,
        timeout_s: float = 86400.0,
        poll_s: float = 5.0,
        told: Callable[[str], None] = _quiet,
    ) -> End:
        """Wait until a run has ended.

        Args:
            run: The run, or its id.
            timeout_s: Seconds to wait.
            poll_s: Seconds between two looks.
            told: Called with a line whenever a task starts or ends, or something holds one up.

        Raises:
            VisionloopError: The time is over, or the server was away for too long.
        """
        run_id = run if isinstance(run, str) else run.run_id
        return follow(
            self.client,
            run_id,
            where=self.host,
            timeout_s=timeout_s,
            poll_s=poll_s,
            told=told,
            names={} if isinstance(run, str) else run.task_names,
            held_up=self._logs(run).held_up,
        )

    def reasons(self, run: Run | str, end: End, *, lines: int = 30) -> list[Reason]:
        """Return why the tasks of a run failed, from their logs.

        Args:
            run: The run, or its id.
            end: How it ended.
            lines: Lines of each log that are kept.
        """
        return self._logs(run).reasons(end, lines=lines)

    def cancel(self, run: Run | str) -> None:
        """Ask the server to end a run; tasks that run are ended within some seconds."""
        runs.cancel(self.client, run if isinstance(run, str) else run.run_id, where=self.host)

    def schedule(
        self,
        work: Work,
        cron: str,
        *,
        experiment: str = "visionloop",
        name: str = "",
        replace: bool = False,
        service_account: str = "",
        pipeline_root: str = "",
    ) -> Schedule:
        """Start a pipeline again and again, one run at a time.

        Args:
            work: What `prepare` compiled.
            cron: When, in UTC: five fields, or six with the seconds in front.
            experiment: Name of the experiment.
            name: Name of the schedule; empty takes the loop's and the pipeline's.
            replace: Whether one of that name that does something else is replaced.
            service_account: As in `submit`.
            pipeline_root: As in `submit`.

        Returns:
            The schedule; one that does the same already is left as it is.

        Raises:
            InputError: The expression is wrong, a parameter differs from run to run, or there is
                one of that name that does something else.
        """
        from visionloop.pipelines.arguments import missing

        six_fields = schedules.with_seconds(cron)
        still = missing(work.package.pipeline, work.arguments)
        if still:
            raise InputError(
                f"{work.package.pipeline} needs {', '.join(still)}, which differ from run to run",
                remedy="Schedule `watch`, `round`, `intake` or `harvest`: they find them",
            )
        wanted = schedules.Wanted(
            name=name or work.package.name,
            experiment_id=self.experiment(experiment, self.namespace_for(work.config)),
            version=self.upload(work),
            arguments=work.arguments,
            cron=six_fields,
            pipeline_root=pipeline_root,
            service_account=service_account or work.config.cluster.service_account,
        )
        return schedules.put(self.client, wanted, replace=replace, where=self.host)

    def schedules(self, experiment: str = "visionloop", *, namespace: str = "") -> list[Schedule]:
        """Return the schedules of an experiment, by name; none where it is not there.

        Args:
            experiment: Name of the experiment.
            namespace: As `namespace_for` returns it; empty takes the server's.
        """
        known = self._known(experiment, namespace)
        return schedules.listed(self.client, known, where=self.host) if known else []

    def delete_schedule(
        self, name: str, experiment: str = "visionloop", *, namespace: str = ""
    ) -> list[Schedule]:
        """Remove a schedule; runs that it has started go on.

        Args:
            name: Name of the schedule.
            experiment: Name of its experiment.
            namespace: As in `schedules`.

        Returns:
            The schedules of that name, as they were.
        """
        known = self._known(experiment, namespace, needed_for=name)
        return schedules.delete(self.client, known, name, where=self.host)

    def switch_schedule(
        self, name: str, *, enabled: bool, experiment: str = "visionloop", namespace: str = ""
    ) -> list[Schedule]:
        """Switch a schedule on or off.

        Args:
            name: Name of the schedule.
            enabled: Whether it starts runs from now on.
            experiment: Name of its experiment.
            namespace: As in `schedules`.

        Returns:
            The schedule as it is now.
        """
        known = self._known(experiment, namespace, needed_for=name)
        return schedules.switch(self.client, known, name, enabled=enabled, where=self.host)

    def experiment(self, name: str, namespace: str = "") -> str:
        """Return the id of an experiment, which is made when it is not there."""
        return experiment(self.client, name, namespace=namespace or self.namespace, where=self.host)

    def namespace_for(self, config: LoopConfig) -> str:
        """Return the namespace of a loop's runs: the one that was named, else the configuration's.

        A server for one user refuses any, so there the configuration's is not sent.
        """
        return self.namespace or (config.cluster.namespace if self.many_users else "")

    def url(self, run_id: str) -> str:
        """Return the page of a run in the UI, empty where no UI is known."""
        return f"{self.ui}/#/runs/details/{run_id}" if self.ui else ""

    def _known(self, name: str, namespace: str, *, needed_for: str = "") -> str:
        """Return the id of an experiment without making one: a mistyped name makes nothing."""
        at = namespace or self.namespace
        found = known_experiment(self.client, name, namespace=at, where=self.host)
        if not found and needed_for:
            raise InputError(
                f"there is no schedule `{needed_for}`: the experiment `{name}` is not there",
                where=self.host,
                remedy="Name its experiment with --experiment, its namespace with --namespace or "
                "--config",
            )
        return found

    def _logs(self, run: Run | str) -> Logs:
        if isinstance(run, str):
            return Logs(self.client, run, namespace=self.namespace, ui=self.ui)
        return Logs(self.client, run.run_id, namespace=run.namespace, ui=self.ui)
