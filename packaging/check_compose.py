"""check_compose.py docker-compose.yml SCHEMA: what the Compose specification's own schema says."""

import json
import sys

import jsonschema
import yaml

with open(sys.argv[1]) as file:
    compose = yaml.safe_load(file)
with open(sys.argv[2]) as file:
    schema = json.load(file)

# Its own $schema has a "#" at its end, which jsonschema does not know.
errors = list(jsonschema.Draft201909Validator(schema).iter_errors(compose))
for error in errors:
    print(f"{sys.argv[1]}: /{'/'.join(map(str, error.absolute_path))}: {error.message}", file=sys.stderr)
for name, service in compose["services"].items():
    for port in service.get("ports", []):
        if not port.startswith("127.0.0.1:"):
            errors.append(port)
            print(f"{sys.argv[1]}: {name} publishes {port} beyond this machine", file=sys.stderr)
sys.exit(1 if errors else 0)
