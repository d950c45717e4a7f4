"""check_objects.py OLDEST RENDERED.yaml...: the objects of the chart against the schemas of every Kubernetes version from OLDEST on.

Kinds of CRDs have no schema among those of Kubernetes. What the chart promises of every pod is looked at beside it.
"""

import functools
import json
import sys

import kubernetes_validate
import yaml
from kubernetes_validate import utils

WITHOUT_SCHEMA = {"Certificate", "Issuer", "HTTPRoute", "PrometheusRule", "ServiceMonitor"}

# It reads the same schemas anew for every object.
utils.schema_contents = functools.lru_cache(maxsize=None)(utils.schema_contents)


def promises(pod):
    """What is wrong with a pod's template; nothing, if all is well."""
    spec = pod["spec"]
    if not spec["securityContext"].get("runAsNonRoot") or spec["securityContext"].get("runAsUser", 0) == 0:
        yield "runs as root"
    if spec.get("automountServiceAccountToken") is not (spec["serviceAccountName"].endswith("-certificates")):
        yield "has a token of Kubernetes that it does not need, or lacks one"
    if spec.get("hostNetwork") or spec.get("hostIPC"):
        yield "is in the host's namespaces"
    for volume in spec.get("volumes", []):
        if "hostPath" in volume and volume["hostPath"]["path"] != "/run/libvirt":
            yield f"mounts {volume['hostPath']['path']} of its host"
    for container in spec["containers"] + spec.get("initContainers", []):
        security = container["securityContext"]
        if security.get("privileged") or security.get("allowPrivilegeEscalation") is not False:
            yield f"{container['name']} may gain rights"
        if security.get("readOnlyRootFilesystem") is not True or security["capabilities"] != {"drop": ["ALL"]}:
            yield f"{container['name']} has a writable root or a capability"
        if not container.get("resources", {}).get("requests"):
            yield f"{container['name']} asks for no resources"
        for mount in container.get("volumeMounts", []):
            if mount["name"] == "libvirt" and not mount.get("readOnly"):
                yield f"{container['name']} may write to libvirt's folder"


wrong = 0
objects = {}
for file in sys.argv[2:]:
    with open(file) as rendered:
        for thing in yaml.safe_load_all(rendered):
            if thing:
                objects.setdefault(json.dumps(thing, sort_keys=True), (file, thing))
versions = [version for version in utils.all_versions() if utils.Version(version) >= utils.Version(sys.argv[1])]
minors = sorted({utils.major_minor(version) for version in versions}, key=utils.Version)
for file, thing in objects.values():
    name = f"{file}: {thing['kind']} {thing['metadata']['name']}"
    pod = thing if thing["kind"] == "Pod" else thing.get("spec", {}).get("template")
    if thing["kind"] == "CronJob":
        pod = thing["spec"]["jobTemplate"]["spec"]["template"]
    said = [f"{name}: {what}" for what in (promises(pod) if pod else ())]
    for version in minors:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            if thing["kind"] not in WITHOUT_SCHEMA:
                said.append(f"{name}: unknown to Kubernetes {version}")
        except kubernetes_validate.ValidationError as error:
            said.append(f"{name}: /{'/'.join(map(str, error.path))}: {error.message} (Kubernetes {version})")
    for line in said:
        print(line, file=sys.stderr)
    wrong += len(said)
print(f"{len(objects)} objects of the chart fit Kubernetes {minors[0]} to {minors[-1]}" if not wrong else f"{wrong} errors")
sys.exit(1 if wrong else 0)
