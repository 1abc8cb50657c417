"""qstat and qdel as TORQUE 6.1.3 and OpenPBS have them.

Lives here: both commands, what is told of a job.
Elsewhere:  ids and states (`pbs_server.py`).
"""

from __future__ import annotations

import getopt
import json
import os
import sys
import time
from typing import Any

from grid.testing.standins.engine import ENDED, Base, Job, whoami
from grid.testing.standins.pbs_server import ID, clock, find, full, has_ended, job_id, letter_of, reach, usage, version

HISTORY_OFF = "PBS is not configured to maintain job history"
FINISHED = "Job has finished, use -x or -H to obtain historical job information"


def qstat(base: Base, args: list[str]) -> None:
    system = base.config["system"]
    torque = system == "torque"
    if args == ["--version"]:
        print(version(base))
        return
    try:
        given, ids = getopt.gnu_getopt(args, "afe1iGMnqrsu:QBxt" if torque else "afEF:HiGMnpqrstTu:wQBx1J")
    except getopt.GetoptError as exc:
        usage(base, f"qstat: invalid option -- '{exc.opt}'\nusage: qstat [-f] [-J] [-p] [-t] [-x] [ job_id... ]\n")
    options = {name for name, _ in given}
    formed = dict(given).get("-F")
    reach(base, "qstat")
    with_history = not torque and ("-x" in options or "-H" in options)
    if torque and "-x" in options:
        print("<Data></Data>")
        return
    if with_history and not base.config["history"]:
        for word in ids or [""]:
            sys.stderr.write(f"qstat: {HISTORY_OFF} {full(base, word) if word else ''}\n")
        if formed == "json":
            print(json_of(base, []))
        return
    status = 0
    found: list[Job] = []
    if not ids or "" in ids or (torque and any("[]" in job for job in ids) and "-t" not in options):
        found = [job for job in base.jobs() if with_history or torque or job["state"] not in ENDED]
        found = [job for job in found if "-t" in options or "array" not in job]
    else:
        for word in ids:
            match = ID.fullmatch(word)
            if not match:
                sys.stderr.write(f"qstat: Unknown queue destination {word}\n")
                status = 172 if torque else 170
                continue
            job = find(base, match)
            if job is None:
                says = "Unknown Job Id Error" if torque else "Unknown Job Id"
                sys.stderr.write(f"qstat: {says} {full(base, word)}\n")
                status = 153
            elif torque and job["owner"] != whoami():
                sys.stderr.write(f"qstat: Unauthorized Request  {full(base, word)}\n")
                status = 159
            elif not torque and has_ended(base, job) and not with_history:
                sys.stderr.write(f"qstat: {full(base, word)} {FINISHED}\n")
                status = 35
            elif "tasks" in job and "-t" in options:
                found += [*([] if torque else [job]), *base.tasks(job)]
            else:
                found.append(job)
    if formed == "json":
        print(json_of(base, found[:1] if system == "openpbs-git" and ids else found))
    elif "-f" in options:
        for job in found:
            print(full_text(base, job))
    elif found:
        print("Job id            Name             User              Time Use S Queue")
        print("----------------  ---------------- ----------------  -------- - -----")
        for job in found:
            row = f"{job_id(base, job):<17} {job['name'][:16]:<16} {job['owner']:<16} 0 "
            print(f"{row}{letter_of(base, job)} {job['queue']}")
    sys.exit(status)


def facts_of(base: Base, job: Job) -> dict[str, str]:
    torque = base.config["system"] == "torque"
    facts = {"Job_Name": job["name"], "Job_Owner": f"{job['owner']}@{base.config['server']}"}
    used = clock((job.get("ended") or time.time()) - job["started"]) if job.get("started") else None
    if used and (job["state"] in ENDED or not torque):
        facts["resources_used.walltime"] = used
    facts |= {"job_state": letter_of(base, job), "queue": job["queue"], "server": base.config["server"]}
    if job.get("layout"):
        facts["exec_host"] = "+".join(f"{node}/0" for node, _ in job["layout"])
        if not torque:
            facts["exec_vnode"] = "+".join(f"({node}:ncpus={cpus})" for node, cpus in job["layout"])
    facts |= {"Error_Path": f"{job['host']}:{job['error']}", "Output_Path": f"{job['host']}:{job['output']}"}
    facts["Rerunable"] = str(job["rerunable"])
    facts |= {f"Resource_List.{name}": value for name, value in job["resources"].items()}
    facts["Resource_List.walltime"] = clock(job["walltime"])
    facts["Variable_List"] = ",".join(f"{name}={value}" for name, value in job["variables"].items())
    facts["comment"] = comment_of(base, job)
    if "array" in job and not torque:
        facts |= {"array_id": f"{job['array']}[].{base.config['server']}", "array_index": str(job["index"])}
    if "tasks" in job:
        facts["array"] = "True"
    if job["state"] == "R" and torque:
        facts["Walltime.Remaining"] = str(int(job["walltime"] - (time.time() - job["started"])))
    if job["state"] in ENDED:
        if not torque:
            facts["substate"] = (
                "91"
                if job.get("deleted") or job.get("cancel") == "deleted"
                else "92"
                if "failed_parent" in job
                else "93"
            )
        if job.get("status") is not None:
            facts["exit_status" if torque else "Exit_status"] = str(job["status"])
        elif torque:
            facts["exit_status"] = "271"
        if torque and job.get("output_lost"):
            facts["sched_hint"] = "Unable to copy files back - please see the mother superior's log for exact details."
    return {name: value for name, value in facts.items() if value != ""}


def comment_of(base: Base, job: Job) -> str:
    if base.config["system"] == "torque":
        if job["state"] == "Q":
            return "Not Running: Not enough of the right type of nodes are available"
        return "Job started on Fri Nov 20 at 22:20" if job.get("started") else ""
    sizes = base.config["nodes"]
    if job["state"] == "Q":
        if max(want["cpus"] for want in job["want"]) > max(sizes.values()):
            return f"Can Never Run: Insufficient amount of resource: ncpus (R: {job['want'][0]['cpus']} A: 12 T: 12)"
        if job["scatter"] and len(job["want"]) > len(sizes):
            return "Can Never Run: Not enough total nodes available"
        return "Not Running: Insufficient amount of resource: ncpus"
    if not job.get("started"):
        return ""
    where = "+".join(f"({node}:ncpus={cpus})" for node, cpus in job["layout"])
    text = f"Job run at Wed Nov 25 at 23:13 on {where}"
    if job["state"] in ENDED:
        if job.get("cancel") == "walltime":
            return f"{text} and exceeded resource walltime"
        if job.get("cancel"):
            return f"{text} and terminated by {job['owner']}"
        return f"{text} and {'finished' if job.get('status') == 0 else 'failed'}"
    return text


def full_text(base: Base, job: Job) -> str:
    """Folded as qstat folds: at 79 columns, by newline and tab."""
    lines = [f"Job Id: {job_id(base, job)}"]
    for name, value in facts_of(base, job).items():
        line = f"    {name} = {value}"
        while len(line) > 79:
            lines.append(line[:79])
            line = "\t" + line[79:]
        lines.append(line)
    return "\n".join([*lines, ""])


def json_of(base: Base, jobs: list[Job]) -> str:
    told: dict[str, Any] = {
        "timestamp": int(time.time()),
        "pbs_version": "23.06.06",
        "pbs_server": base.config["server"],
    }
    if jobs:
        told["Jobs"] = {job_id(base, job): facts_of(base, job) for job in jobs}
    return json.dumps(told, indent="\t")


def qdel(base: Base, args: list[str]) -> None:
    torque = base.config["system"] == "torque"
    try:
        _, ids = getopt.gnu_getopt(args, "acm:ptW:b:" if torque else "W:xGH")
    except getopt.GetoptError as exc:
        usage(
            base,
            f"qdel: invalid option -- '{exc.opt}'\nusage: qdel [-W force|suppress_email=X] [-x] job_identifier...\n",
        )
    reach(base, "qdel")
    status = 0
    for word in ids:
        match = ID.fullmatch(word)
        if not match:
            sys.stderr.write(f"qdel: illegally formed job identifier: {word}\n")
            status = 1
            continue
        job = find(base, match)
        if job is None:
            sys.stderr.write(
                f"qdel: nonexistent job id: {word}\n" if torque else f"qdel: Unknown Job Id {full(base, word)}\n"
            )
            status = 153
        elif job["owner"] != whoami() and os.getuid() != 0:
            sys.stderr.write(
                f"qdel: Unauthorized Request  {'MSG=operation not permitted ' if torque else ''}{full(base, word)}\n"
            )
            status = 159
        elif job["state"] in ENDED:
            says = (
                f"Request invalid for state of job MSG=invalid state for job - COMPLETE {full(base, word)}"
                if torque
                else f"Job has finished {full(base, word)}"
            )
            sys.stderr.write(f"qdel: {says}\n")
            status = 170 if torque else 35
        elif job["state"] == "E":
            sys.stderr.write(f"qdel: Request invalid for state of job {full(base, word)}\n")
            status = 170 if torque else 168
        else:
            base.cancel(job)
    sys.exit(status)
