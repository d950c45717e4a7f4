#!/usr/bin/env python3
"""Cut the two extracts of this folder from the full traces (see README.md).

usage: extract.py VMS-5MIN.csv.gz TASKS-2S.csv.gz

Deterministic: the same inputs give the same rows in the same order, and the gzip header carries no time and no name.
"""

import csv
import gzip
import io
import pathlib
import sys

HERE = pathlib.Path(__file__).parent

# Each machine's own five days: machine -> hour of the source at which its stretch starts. Most machines are quiet for weeks,
# so one stretch for all would show a replay in which nothing happens for its first two days.
DURATION = 5 * 86_400
MACHINES = {
    # RSS climbs, falls or steps within the first day and a half
    "vm-001": 1083, "vm-013": 1236, "vm-025": 537, "vm-026": 543, "vm-040": 744, "vm-045": 1770,
    "vm-054": 1116, "vm-062": 9, "vm-092": 1230, "vm-096": 873, "vm-112": 441, "vm-117": 33,
    # RSS nearly flat and far below the allocation: harvest
    "vm-009": 525, "vm-029": 1041, "vm-031": 909, "vm-088": 1152, "vm-101": 1152,
    # RSS flat and close to the allocation, the guest's own need lively
    "vm-002": 525, "vm-005": 1173, "vm-019": 993, "vm-033": 1194, "vm-036": 1152, "vm-046": 1152, "vm-100": 93,
}  # fmt: skip
TASKS = {f"task-{n:03}": 0 for n in (0, 1, 5, 9, 10, 18, 24, 29, 35, 38)}


def cut(source: str, target: str, starts: dict[str, int]) -> None:
    with gzip.open(source, "rt", newline="") as text:
        rows = csv.reader(text)
        header = next(rows)
        kept = [row for row in rows if row[0] in starts and 0 <= int(row[1]) - starts[row[0]] * 3600 < DURATION]
    first = {}
    for row in kept:
        row[1] = int(row[1]) - first.setdefault(row[0], int(row[1]))
    kept.sort(key=lambda row: (row[1], row[0]))
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([header, *kept])
    with open(HERE / target, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(out.getvalue().encode())
    print(f"{target}: {len(kept)} rows, {(HERE / target).stat().st_size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    cut(sys.argv[1], "demo.csv.gz", MACHINES)
    cut(sys.argv[2], "tasks.csv.gz", TASKS)
