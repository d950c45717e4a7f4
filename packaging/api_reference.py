"""Writes docs/api.md: every path of gateway/openapi.json, and every method of proto/."""

import json
import re
from pathlib import Path

print("""# The API

Made out of `gateway/openapi.json` and `proto/` by `packaging/write_reference`, and compared with them by `make test`. Examples: [Usage](usage.md).

## REST

All paths lie on the gateway's port. The fields of every body are in `/openapi.json`, and can be tried out on `/docs`, of every gateway. Roles:
[Who may ask, and what](access.md#roles).

| method | path | what it does |
| --- | --- | --- |""")
document = json.loads(Path("gateway/openapi.json").read_text())
for path, item in document["paths"].items():
    for method in ("get", "put", "post", "patch", "delete"):
        if method in item:
            summary = (item[method].get("summary") or item[method].get("description") or "").split("\n")[0]
            print(f"| {method.upper()} | `{path}` | {summary.replace('|', chr(92) + '|')} |")

print("""
## gRPC

Every port has reflection (v1 and v1alpha) and `grpc.health.v1`. The gateway's port also serves grpc-web, and forwards of the services of registry and
predictor what people need. Messages: [the contract](../proto/memharvest).""")
for file in sorted(Path("proto/memharvest").glob("*/v1/*.proto")):
    text = file.read_text()
    package = re.search(r"^package (.+);", text, re.MULTILINE)[1]
    for comment, name, body in re.findall(r"((?:^//[^\n]*\n)*)^service (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        said = " ".join(re.sub(r"^// ?", "", comment, flags=re.MULTILINE).split())
        print(f"\n### {package}.{name}\n\n{said}\n\n| method | what it does |\n| --- | --- |")
        for comment, method, arguments, returns in re.findall(
            r"((?:^ +//[^\n]*\n)*)^ +rpc (\w+)\(([^)]*)\)\s*returns \(([^)]*)\)", body, re.MULTILINE
        ):
            said = " ".join(re.sub(r"^ *// ?", "", comment, flags=re.MULTILINE).split())
            streams = [word for word, part in (("stream in", arguments), ("stream out", returns)) if part.startswith("stream ")]
            mark = f" ({', '.join(streams)})" if streams else ""
            print(f"| `{method}`{mark} | {said.replace('|', chr(92) + '|')} |")
