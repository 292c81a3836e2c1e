"""A build on Kubernetes: the manifest of a RayJob, which KubeRay's operator makes a cluster of."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import PurePosixPath

from augesc_builder.errors import ExecutorError

_NOT_IN_A_LABEL = re.compile(r"[^a-z0-9]+")

_TEMPLATE = """\
# A build on Kubernetes, written by `augesc ray-job`; edit it as your cluster wants it, and
#
#     kubectl apply -f FILE
#
# It takes the operator KubeRay (1.1 or newer). Ray's head collects queries{trains}, hands out
# shards, and makes the rest; the workers generate. What is finished is never made again, so apply
# it again after whatever happened, with more or fewer workers.
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: {name}
spec:
  entrypoint: {entrypoint}
  # The cluster goes when the build has ended; a build that failed is tried again in a new one.
  shutdownAfterJobFinishes: true
  backoffLimit: 3
  rayClusterSpec:
{version}    headGroupSpec:
      rayStartParams:
        # No worker of the build is here.
        num-cpus: "0"
        num-gpus: "0"
      template:
        spec:
          containers:
            - name: ray-head
              image: {image}
              resources:
                limits:
                  cpu: "{cpus}"
                  memory: {memory}
{head_gpus}{mounts}{volumes}    workerGroupSpecs:
      - groupName: workers
        replicas: {workers}
        minReplicas: {workers}
        maxReplicas: {workers}
        rayStartParams: {{}}
        template:
          spec:
            containers:
              - name: ray-worker
                image: {image}
                resources:
                  limits:
                    cpu: "{cpus}"
                    memory: {memory}
{gpus}{worker_mounts}{worker_volumes}"""

_MOUNTS = """\
              volumeMounts:
                - name: corpus
                  mountPath: {at}
"""

_VOLUMES = """\
          volumes:
            # All nodes see the run's folder under the same path: ReadWriteMany.
            - name: corpus
              persistentVolumeClaim:
                claimName: {claim}
"""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_IMAGE = re.compile(r"[\w./:@-]{1,500}", re.ASCII)
_SIZE = re.compile(r"[1-9]\d{0,15}([KMGTPE]i?)?", re.ASCII)


@dataclass(frozen=True)
class RayJob:
    """What the manifest is to say; ``gpus``, ``cpus`` and ``memory`` are those of a node.

    ``out`` is an address, or a path in the containers, which ``claim`` is mounted for. The head
    has GPUs where it ``trains``.
    """

    name: str
    recipe: str
    overrides: Sequence[str]
    image: str
    out: str
    claim: str | None
    workers: int
    gpus: int
    cpus: int
    memory: str
    trains: bool

    def text(self) -> str:
        """Return the manifest as YAML.

        Raises :class:`~augesc_builder.errors.ExecutorError` for what Kubernetes would not take.
        """
        at = self._mounted()
        for option, text, pattern, example in (
            ("--claim", self.claim, _NAME, "corpus"),
            ("--image", self.image, _IMAGE, "registry/augesc:1.0"),
            ("--memory", self.memory, _SIZE, "64Gi"),
        ):
            if text is not None and not pattern.fullmatch(text):
                raise ExecutorError(f"{option}: expected such as {example}, found {text[:80]!r}")
        gpus = f"                  nvidia.com/gpu: {self.gpus}\n" if self.gpus else ""
        mounts = volumes = ""
        if at is not None:
            mounts = _MOUNTS.format(at=json.dumps(at))
            volumes = _VOLUMES.format(claim=json.dumps(self.claim))
        return _TEMPLATE.format(
            name=_label(self.name),
            trains=" and fine-tunes" if self.trains else "",
            entrypoint=json.dumps(shlex.join(self._command())),
            version=_version(),
            image=json.dumps(self.image),
            cpus=self.cpus,
            memory=json.dumps(self.memory),
            head_gpus=gpus if self.trains else "",
            mounts=mounts,
            volumes=volumes,
            workers=self.workers,
            gpus=_deeper(gpus),
            worker_mounts=_deeper(mounts),
            worker_volumes=_deeper(volumes),
        )

    def _command(self) -> list[str]:
        command = ["augesc", "build", "--executor", "ray", "--ray-address", "auto"]
        command += ["--recipe", self.recipe, "--out", self.out]
        for given in self.overrides:
            command += ["--set", given]
        return command

    def _mounted(self) -> str | None:
        """Return where the claim is mounted: the folder that the run's lies in."""
        if "://" in self.out:
            if self.claim is not None:
                raise ExecutorError(f"--claim: --out {self.out[:80]} is an address and needs none")
            return None
        path = PurePosixPath(self.out)
        if not path.is_absolute() or ".." in path.parts or len(path.parts) < 3:  # noqa: PLR2004
            raise ExecutorError(
                f"--out {self.out[:80]!r}: expected a folder in the containers, below that at "
                f"which the volume is mounted, such as /data/corpus, or an address"
            )
        if self.claim is None:
            raise ExecutorError(
                f"--out {self.out[:80]}: containers lose what is on no volume; give the claim of "
                f"one that all nodes see (--claim NAME), or an address"
            )
        return str(path.parent)


def _deeper(text: str) -> str:
    """Return lines of the head as those of a worker, which stand deeper."""
    return "".join(f"  {line}" for line in text.splitlines(keepends=True))


def _label(name: str) -> str:
    """Return a name as Kubernetes takes it; KubeRay adds to it, and refuses more than 47 signs."""
    return "augesc-" + (_NOT_IN_A_LABEL.sub("-", name.lower())[:40].strip("-") or "build")


def _version() -> str:
    """Return the line that says which Ray the image is to have: the one that is here, if any."""
    try:
        return f'    rayVersion: "{metadata.version("ray")}"\n'
    except metadata.PackageNotFoundError:
        return ""
