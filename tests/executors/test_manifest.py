"""The manifest of a RayJob, held against the fields that KubeRay's operator has.

Names and kinds are those of the types RayJob and RayCluster of ray.io/v1, and of a pod's template;
the operator refuses what it does not know.
"""

from __future__ import annotations

import shlex

import pytest
import yaml

COUNT, TEXT, FLAG, QUANTITY = int, str, bool, (int, str)

CONTAINER = {
    "name": TEXT,
    "image": TEXT,
    "resources": {"limits": {"cpu": QUANTITY, "memory": QUANTITY, "nvidia.com/gpu": QUANTITY}},
    "volumeMounts": [{"name": TEXT, "mountPath": TEXT}],
}
TEMPLATE = {
    "spec": {
        "containers": [CONTAINER],
        "volumes": [{"name": TEXT, "persistentVolumeClaim": {"claimName": TEXT}}],
    }
}
RAY_JOB = {
    "apiVersion": TEXT,
    "kind": TEXT,
    "metadata": {"name": TEXT},
    "spec": {
        "entrypoint": TEXT,
        "shutdownAfterJobFinishes": FLAG,
        "backoffLimit": COUNT,
        "rayClusterSpec": {
            "rayVersion": TEXT,
            "headGroupSpec": {
                "rayStartParams": {"num-cpus": TEXT, "num-gpus": TEXT},
                "template": TEMPLATE,
            },
            "workerGroupSpecs": [
                {
                    "groupName": TEXT,
                    "replicas": COUNT,
                    "minReplicas": COUNT,
                    "maxReplicas": COUNT,
                    "rayStartParams": {},
                    "template": TEMPLATE,
                }
            ],
        },
    },
}
"""Fields that a manifest of ours may have. What must be there: of the cluster ``headGroupSpec``, of
groups ``rayStartParams`` and ``template``, of workers a name and bounds of their number."""


def check(found, allowed, at="RayJob"):
    if isinstance(allowed, dict):
        assert isinstance(found, dict), at
        for key, value in found.items():
            assert key in allowed, f"{at}.{key}"
            check(value, allowed[key], f"{at}.{key}")
    elif isinstance(allowed, list):
        assert isinstance(found, list), at
        assert found, at
        for each in found:
            check(each, allowed[0], at)
    else:
        assert isinstance(found, allowed), at


@pytest.fixture
def manifest(augesc):
    """Write one; give what it says."""

    def write(*given, recipe="paper", out=("--out", "/data/corpus", "--claim", "corpus")):
        code, said, err = augesc("ray-job", recipe, "--image", "registry/augesc:1", *out, *given)
        assert code == 0, err
        found = yaml.safe_load(said)
        check(found, RAY_JOB)
        return found

    return write


def limits(group):
    return group["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_a_job_of_workers_that_see_one_volume(manifest):
    found = manifest("--workers", 3, "--gpus", 2, "--set", "name=it's $(touch x)")
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", "RayJob")
    assert shlex.split(found["spec"]["entrypoint"]) == [
        *("augesc", "build", "--executor", "ray", "--ray-address", "auto", "--recipe", "paper"),
        *("--out", "/data/corpus", "--set", "name=it's $(touch x)"),
    ]
    assert found["metadata"]["name"] == "augesc-it-s-touch-x"
    head = found["spec"]["rayClusterSpec"]["headGroupSpec"]
    (group,) = found["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert {group[name] for name in ("replicas", "minReplicas", "maxReplicas")} == {3}
    for each in (head, group):
        assert limits(each)["nvidia.com/gpu"] == 2  # the head fine-tunes
        spec = each["template"]["spec"]
        mount = {"name": "corpus", "mountPath": "/data"}
        assert spec["containers"][0]["volumeMounts"] == [mount]
        assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "corpus"}
    assert head["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}


def test_an_address_needs_no_volume_and_a_core_no_gpu(manifest):
    found = manifest("--gpus", 0, "--memory", "8Gi", out=("--out", "s3://bucket/corpus"))
    spec = found["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert list(spec) == ["containers"]
    assert spec["containers"][0]["resources"] == {"limits": {"cpu": "8", "memory": "8Gi"}}


def test_what_is_written_is_not_overwritten(augesc, refused, tmp_path):
    call = ["ray-job", "tiny", "--image", "i", "--out", "/data/run", "--claim", "c"]
    call += ["--file", tmp_path / "job.yaml"]
    code, said, _ = augesc(*call)
    assert code == 0
    assert f"kubectl apply -f {tmp_path / 'job.yaml'}" in said
    check(yaml.safe_load((tmp_path / "job.yaml").read_text()), RAY_JOB)
    (tmp_path / "job.yaml").write_text("mine")
    assert "says something else" in refused(*call)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--out", "/data/run"], "containers lose what is on no volume"),
        (["--out", "run", "--claim", "c"], "expected a folder in the containers"),
        (["--out", "/run", "--claim", "c"], "expected a folder in the containers"),
        (["--out", "s3://a/b", "--claim", "c"], "is an address and needs none"),
        (["--out", "/data/run", "--claim", "A b"], "--claim: expected such as corpus"),
        (["--out", "/data/run", "--claim", "c", "--memory", "lots"], "--memory: expected such as"),
        (["--out", "/data/run", "--claim", "c", "--image", "a\nb: c"], "--image: expected such"),
    ],
)
def test_what_kubernetes_would_not_take(refused, given, expected):
    image = [] if "--image" in given else ["--image", "i"]
    assert expected in refused("ray-job", "paper", *image, *given)


def test_a_file_that_containers_do_not_see(refused, tiny_file):
    call = ("ray-job", tiny_file, "--image", "i", "--out", "/data/run", "--claim", "c")
    assert "containers do not see this file" in refused(*call)
