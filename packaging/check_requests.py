"""check_requests.py VALUES.yaml MESH.md: what each service asks a node for is at least what docs/benchmarks/mesh.md has measured."""

import re
import sys

import yaml

with open(sys.argv[1]) as file:
    values = yaml.safe_load(file)
with open(sys.argv[2]) as file:
    page = file.read()


def measured(service, what):
    """The first figure: of a collector that is the one of a single host."""
    found = re.search(rf"^\| {service}, {what} \| ([\d.]+) ", page, re.MULTILINE)
    return float(found[1])


wrong = 0
for service in ("collector", "predictor", "registry", "gateway"):
    requests = values[service]["resources"]["requests"]
    for name, asked, used, unit in (
        ("memory", float(requests["memory"].removesuffix("Mi")), measured(service, "resident memory"), "MiB"),
        ("cpu", float(requests["cpu"].removesuffix("m")), 10 * measured(service, "of one core"), "m"),
    ):
        if asked < used:
            print(f"{sys.argv[1]}: the {service} asks for {asked:g} {unit} of {name} and has used {used:g}", file=sys.stderr)
            wrong += 1
sys.exit(1 if wrong else 0)
