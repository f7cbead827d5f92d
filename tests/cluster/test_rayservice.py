"""The manifest for KubeRay: what a RayService needs, and arguments that the application takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from personalive.cluster.serve import TOKEN_ENV, Arguments, build, read_replicas
from personalive.errors import InputError

MANIFEST = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "rayservice.yaml").read_text(encoding="utf-8"))


SERVED = yaml.safe_load(MANIFEST["spec"]["serveConfigV2"])


@pytest.mark.full  # importing Ray's schemas takes longer than all else here
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own schemas
def test_the_configuration_is_what_ray_serve_takes():
    from ray.serve.schema import ServeDeploySchema

    assert len(ServeDeploySchema.model_validate(SERVED).applications) == 1


def test_the_application_is_ours_with_arguments_that_it_takes():
    (application,) = SERVED["applications"]
    module, _, name = application["import_path"].partition(":")
    assert (module, name) == (build.__module__, build.__name__)
    arguments = Arguments.model_validate(application["args"])
    assert read_replicas(arguments.replicas) == (1, 8)


def test_head_and_workers_are_what_kuberay_takes():
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("ray.io/v1", "RayService")
    cluster = MANIFEST["spec"]["rayClusterConfig"]
    (group,) = cluster["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for part, name in ((cluster["headGroupSpec"], "ray-head"), (group, "ray-worker")):
        assert isinstance(part["rayStartParams"], dict)
        (container,) = part["template"]["spec"]["containers"]
        assert container["name"] == name
        assert container["image"]
        assert container["env"][0]["name"] == TOKEN_ENV
        assert container["resources"]["limits"] == container["resources"]["requests"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"  # as each replica asks for
    assert "serve" in {
        port["name"] for port in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
    }


def test_a_cluster_needs_a_token(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(TOKEN_ENV, raising=False)
    with pytest.raises(InputError, match=TOKEN_ENV):
        build(Arguments())


@pytest.mark.parametrize("text", ["", "0", "3..1", "1..", "..4", "many", "-1", "1...4"])
def test_replicas_that_are_none(text: str):
    with pytest.raises(InputError, match="--replicas"):
        read_replicas(text)
