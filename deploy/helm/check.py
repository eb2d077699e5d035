"""Checks the chart, and writes deploy/kustomize/base from it.

`cargo xtask deploy` calls this with the packages it needs on the path. Without arguments it checks only: the chart
lints, its schema refuses what it should, every rendered object holds against the published schemas of Kubernetes, and
the kustomize base is what the chart renders. With --write it writes that base anew first.
"""

import json
import sys
from pathlib import Path

import helm_python as helm
import kubernetes_validate
import yaml

HERE = Path(__file__).parent
CHART = HERE / "linktracer"
BASE = HERE.parent / "kustomize" / "base"
SECCOMP = HERE.parent / "seccomp" / "linktracer.json"

# The oldest that the chart names, and what came since.
KUBERNETES = ["1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]

# What the chart's schema is not Kubernetes' own for.
CUSTOM_KINDS = {"PodMonitor"}

KUSTOMIZATION_KEYS = {
    "apiVersion", "kind", "namespace", "resources", "configMapGenerator", "images", "patches", "labels",
}

CONFIG = {"services": [{"name": "web", "match": {"cgroup": "*"}}]}

# Values that a person might set, each of which must render to something valid.
VARIANTS = {
    "defaults": {},
    "pod monitor": {"podMonitor": {"enabled": True, "interval": "30s", "labels": {"release": "prometheus"}}},
    "everything": {
        "image": {"digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}],
        "fullnameOverride": "tracer",
        "port": 9000,
        "config": CONFIG,
        "priorityClassName": "system-node-critical",
        "affinity": {"nodeAffinity": {}},
        "updateStrategy": {"type": "OnDelete"},
        "podLabels": {"team": "ranking"},
        "serviceAccount": {"create": False, "name": "mine"},
        "capabilities": ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"],
        "seccompProfile": {"type": "Localhost", "localhostProfile": "linktracer.json"},
        "extraEnv": [{"name": "LINKTRACER_LOG", "value": "debug"}],
    },
    "nothing asked of the API": {"kubernetes": {"enabled": False}},
    "an old cluster": {"appArmorProfile": None, "seccompProfile": None},
}

# Values that the schema must refuse, and a word of the reason.
REFUSED = {
    "a misspelt key": ({"tolerationz": []}, "tolerationz"),
    "no service": ({"config": {"services": []}}, "services"),
    "the chart's own key": ({"config": {"services": CONFIG["services"], "listen": "0.0.0.0:1"}}, "listen"),
    "a capability with its prefix": ({"capabilities": ["CAP_BPF"]}, "capabilities"),
    "every capability": ({"capabilities": ["ALL"]}, "capabilities"),
    "a profile without its name": ({"seccompProfile": {"type": "Localhost"}}, "localhostProfile"),
    "a name without its profile": (
        {"seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "x.json"}}, "seccompProfile",
    ),
    "a word for yes": ({"kubernetes": {"enabled": "yes"}}, "enabled"),
    "a port out of range": ({"port": 70000}, "port"),
}


def render(chart, values):
    """The objects of the chart with these values, in the order of their files."""
    files = chart.render(values, name="linktracer", namespace="linktracer")
    text = "".join(f"---\n{files[name].strip()}\n" for name in sorted(files) if name.endswith(".yaml") and files[name].strip())
    return text, [document for document in yaml.safe_load_all(text) if document]


def problems_of_lint():
    report = helm.lint(CHART, {}, strict=True, namespace="linktracer")
    # A chart without an icon is a matter of taste.
    return [
        f"lint: {message['path']}: {message['error']}"
        for message in report["messages"]
        if message["severity"] > 1
    ] + [f"lint: {error}" for error in report["errors"]]


def problems_of_variants(chart):
    problems = []
    for name, values in VARIANTS.items():
        chart.validate_schema(values)
        _, documents = render(chart, values)
        for document in documents:
            if document["kind"] in CUSTOM_KINDS:
                continue
            for version in KUBERNETES:
                try:
                    kubernetes_validate.validate(document, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    problems.append(f"{name}: {document['kind']} in {version}: {error.message}")
        for document in documents:
            if document["kind"] == "ConfigMap":
                yaml.safe_load(document["data"]["linktracer.yaml"])
    return problems


def problems_of_schema(chart):
    problems = []
    for name, (values, word) in REFUSED.items():
        try:
            chart.validate_schema(values)
            problems.append(f"schema: {name} is accepted")
        except helm.HelmValuesError as error:
            if word not in str(error):
                problems.append(f"schema: {name} is refused without saying {word}: {error}")
    return problems


def problems_of_kustomizations():
    """kustomize itself is in no package here: what it would look for is looked for, and its patches are parsed."""
    problems = []
    for path in sorted(BASE.parent.glob("*/kustomization.yaml")):
        text = yaml.safe_load(path.read_text())
        unknown = set(text) - KUSTOMIZATION_KEYS
        if unknown or text.get("kind") != "Kustomization":
            problems.append(f"{path}: {sorted(unknown)} are no keys of a Kustomization")
        files = [name for entry in text.get("configMapGenerator", []) for name in entry["files"]]
        files += [patch["path"] for patch in text.get("patches", []) if "path" in patch]
        for name in text["resources"] + [file.split("=")[-1] for file in files]:
            if not (path.parent / name).exists():
                problems.append(f"{path}: {name} is not there")
        for name in text["resources"]:
            resource = path.parent / name
            documents = yaml.safe_load_all(resource.read_text()) if resource.is_file() else []
            for document in documents:
                kubernetes_validate.validate(document, KUBERNETES[-1], strict=True)
    return problems


def problems_of_seccomp():
    """The profile as container runtimes read it (the field LinuxSeccomp of OCI's runtime-spec): what is not named is
    refused with EPERM."""
    profile = json.loads(SECCOMP.read_text())
    problems = []
    expected = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"]}
    rest = {key: value for key, value in profile.items() if key != "syscalls"}
    if rest != expected:
        problems.append(f"{SECCOMP}: {rest} is not {expected}")
    for rule in profile["syscalls"]:
        if rule["action"] != "SCMP_ACT_ALLOW" or set(rule) != {"names", "action"}:
            problems.append(f"{SECCOMP}: a rule that does something else than to allow by name")
        if rule["names"] != sorted(set(rule["names"])):
            problems.append(f"{SECCOMP}: names that are not in order, or there twice")
    return problems


def base_files(chart):
    """What stands in the kustomize base: the configuration as a file of its own, and all other objects."""
    files = chart.render({}, name="linktracer", namespace="linktracer")
    config = yaml.safe_load(files.pop("linktracer/templates/configmap.yaml"))["data"]["linktracer.yaml"]
    objects = [files[name].strip() for name in sorted(files) if name.endswith(".yaml") and files[name].strip()]
    # The hash of the configuration is Helm's way to restart pods; kustomize has its own.
    lines = [
        line
        for line in "\n---\n".join(objects).splitlines()
        if "checksum/config" not in line and "starts the pods anew" not in line
    ]
    head = "# Rendered from deploy/helm/linktracer by `cargo xtask deploy --write`.\n"
    return {"objects.yaml": head + "\n".join(lines) + "\n", "linktracer.yaml": head + config}


def main(arguments):
    with helm.Chart.load(CHART) as chart:
        base = base_files(chart)
        if arguments == ["--write"]:
            for name, text in base.items():
                (BASE / name).write_text(text)
        problems = problems_of_lint() + problems_of_schema(chart) + problems_of_variants(chart)
        for name, text in base.items():
            if not (BASE / name).exists() or (BASE / name).read_text() != text:
                problems.append(f"deploy/kustomize/base/{name} is not what the chart renders: cargo xtask deploy --write")
        problems += problems_of_kustomizations() + problems_of_seccomp()
    for problem in problems:
        print(problem)
    print(
        f"chart: {len(VARIANTS)} sets of values against {len(KUBERNETES)} versions of Kubernetes, "
        f"{len(REFUSED)} refusals; {len(problems)} problems"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
