//! Bad input: one line that names cause and cure, the right code, and no panic.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use memharvest_end_to_end::grpcurl::Grpcurl;
use memharvest_end_to_end::mesh::{Mesh, PROCESSES, binary};
use memharvest_services::metrics::code_name;
use serde_json::Value;
use tokio::process::Command;

/// A program that does not end by itself has taken what it should have refused.
const REFUSAL: Duration = Duration::from_secs(20);

/// What a program is given and must refuse.
struct Case {
    /// Program and arguments; `$folder` holds the files below, and `$taken` is a port that somebody else listens on.
    line: &'static str,
    /// One variable of the environment, as `NAME=value`.
    env: Option<&'static str>,
    exit: i32,
    /// What its last words must contain: the cause, then the cure.
    told: &'static [&'static str],
}

const fn case(line: &'static str, exit: i32, told: &'static [&'static str]) -> Case {
    Case { line, env: None, exit, told }
}

const fn with_env(line: &'static str, env: &'static str, exit: i32, told: &'static [&'static str]) -> Case {
    Case { line, env: Some(env), exit, told }
}

const FILES: [(&str, &str); 4] = [
    ("broken.csv", "vm_id,t_seconds,allocated_bytes,used_bytes\na,0,1000,100\na,soon,1000,100\n"),
    (
        "text",
        "this is a letter to somebody, and it is much longer than the header of any database at all; it ends here\n",
    ),
    ("misspelt.toml", "lisen = \"127.0.0.1:0\"\n"),
    ("wrong.toml", "listen = \"everywhere\"\n"),
];

const CASES: &[Case] = &[
    // A broken line of a trace.
    case(
        "memharvest up --ephemeral-ports --trace $folder/broken.csv",
        1,
        &["broken.csv: line 3: t_seconds is \"soon\"", "is needed"],
    ),
    case("memharvest-collector $any --trace $folder/broken.csv", 1, &["broken.csv: line 3", "is needed"]),
    case("memharvest-collector $any --trace $folder/nowhere.csv", 1, &["nowhere.csv", "No such file"]),
    // An unknown setting: as a flag, in the file, in the environment; and wrong values.
    case("memharvest-registry --lisen 127.0.0.1:0", 2, &["unexpected argument '--lisen'", "'--listen'"]),
    case(
        "memharvest-gateway --config $folder/misspelt.toml",
        64,
        &["unknown key `lisen`", "misspelt.toml", "did you mean `listen`"],
    ),
    case("memharvest-gateway --config $folder/wrong.toml", 64, &["wrong.toml", "everywhere"]),
    case("memharvest-gateway --config $folder/none.toml", 64, &["none.toml", "check --config"]),
    with_env(
        "memharvest-predictor",
        "MEMHARVEST_LISEN=1",
        64,
        &["MEMHARVEST_LISEN", "did you mean `MEMHARVEST_LISTEN`"],
    ),
    with_env(
        "memharvest-collector",
        "MEMHARVEST_INTERVAL=often",
        64,
        &["MEMHARVEST_INTERVAL", "often", "write a duration such as"],
    ),
    case("memharvest up --simulate 2by5", 2, &["2by5", "such as 2x5"]),
    case("memharvest frobnicate", 2, &["frobnicate"]),
    case("memharvest-gateway --listen 0.0.0.0:0", 64, &["0.0.0.0:0", "--insecure"]),
    // A port in use.
    case(
        "memharvest-registry $any --listen 127.0.0.1:$taken --database $folder/r.db",
        1,
        &["--listen", "127.0.0.1:$taken", "in use"],
    ),
    case(
        "memharvest-predictor $any --data-dir $folder --admin-listen 127.0.0.1:$taken",
        1,
        &["--admin-listen", "in use"],
    ),
    case(
        "memharvest up --simulate 1x1 --ephemeral-ports --listen 127.0.0.1:$taken",
        1,
        &["$taken", "in use", "--listen"],
    ),
    // A database that cannot be opened.
    case("memharvest-registry $any --database $folder", 1, &["it is a directory", "--database"]),
    case("memharvest-registry $any --database $folder/text", 1, &["not a SQLite database", "--database"]),
    case(
        "memharvest-registry $any --database $folder/no/r.db",
        1,
        &["does not exist", "create it or pass --database"],
    ),
    case(
        "memharvest-registry $any --database mysql://db/x",
        64,
        &["no such kind of database", "SQLite file"],
    ),
    case("memharvest-predictor $any --data-dir $folder/text", 1, &["text/predictor.db", "--data-dir"]),
    // A libvirt that is not there.
    case(
        "memharvest up --ephemeral-ports --libvirt-uri qemu+unix:///system?socket=$folder/sock",
        1,
        &["sock", "check --libvirt-uri"],
    ),
    case("memharvest-collector $any --libvirt-uri kvm:///system", 64, &["no driver `kvm`", "qemu:///system"]),
    // A wrong URL.
    case(
        "memharvest-predictor $any --registry nowhere",
        2,
        &["nowhere", "write it like http://127.0.0.1:7401"],
    ),
    case(
        "memharvest-gateway --check --predictor ftp://a",
        2,
        &["ftp://a", "write it like http://127.0.0.1:7401"],
    ),
    with_env(
        "memharvest-collector --check",
        "MEMHARVEST_REGISTRY=http://a/b",
        64,
        &["MEMHARVEST_REGISTRY", "has a path"],
    ),
    case(
        "memharvest-collector --check --otlp-endpoint nowhere",
        64,
        &["--otlp-endpoint", "nowhere", "http://"],
    ),
    case("memharvest hosts --url nowhere", 2, &["nowhere", "http://127.0.0.1:8080"]),
    case(
        "memharvest hosts --url http://127.0.0.1:1",
        1,
        &["cannot reach the gateway at http://127.0.0.1:1", "--url"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn programs_refuse_it_in_one_line_with_the_right_code() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in FILES {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = listener.local_addr().unwrap().port().to_string();
    let mut surprises = Vec::new();
    for case in CASES {
        let filled_in = |text: &str| {
            text.replace("$folder", &folder.path().display().to_string()).replace("$taken", &taken)
        };
        let (exit, said) = refused(&filled_in(case.line), case.env, folder.path()).await;
        // Usage errors are told by several lines: the cause, a tip, how to go on.
        let told: &str = if case.exit == 2 { &said } else { said.lines().last().unwrap_or_default() };
        let missing: Vec<String> =
            case.told.iter().map(|word| filled_in(word)).filter(|word| !told.contains(word)).collect();
        // What is not a line of the log is the error, and it is one.
        let program = case.line.split(' ').next().unwrap_or_default();
        let errors = said.lines().filter(|line| line.starts_with(&format!("{program}: "))).count();
        let told_once = case.exit == 2 || (errors == 1 && told.starts_with(program));
        if exit != Some(case.exit) || !missing.is_empty() || !told_once || said.contains("panicked") {
            surprises.push(format!(
                "{}: exit {exit:?}, not {}; without {missing:?}: {said}",
                case.line, case.exit
            ));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

/// How a program ends, and what it says on standard error.
async fn refused(line: &str, env: Option<&str>, folder: &Path) -> (Option<i32>, String) {
    let line = line.replace("$any", "--admin-listen 127.0.0.1:0 --listen 127.0.0.1:0");
    let mut words: Vec<&str> = line.split(' ').collect();
    let program = binary(words.remove(0)).unwrap();
    let mut command = Command::new(program);
    // A flag that is given twice would be the error: the case's own comes last.
    command.args(without_repeats(&words)).envs(env.and_then(|variable| variable.split_once('=')));
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let ended = command.kill_on_drop(true).spawn().unwrap().wait_with_output();
    match tokio::time::timeout(REFUSAL, ended).await {
        Ok(output) => {
            let output = output.unwrap();
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        }
        Err(_) => (None, "it runs on".to_owned()),
    }
}

/// Of flags with a value that are given twice, the last.
fn without_repeats<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let repeated = words[at].starts_with("--") && words[at + 1..].contains(&words[at]);
        if repeated {
            at += 2;
        } else {
            kept.push(words[at]);
            at += 1;
        }
    }
    kept
}

const SCOPE: &str = "/boundaries/fleet";

/// REST requests that are refused: method, path, body, status, and what the problem must name.
const REQUESTS: &[(&str, &str, &str, u16, &str)] = &[
    ("PUT", SCOPE, "{", 400, "not valid JSON"),
    ("PUT", SCOPE, "[]", 400, "must be a JSON object"),
    ("PUT", SCOPE, r#"{"headroom": 0.1}"#, 400, "unknown field `headroom`"),
    ("PUT", SCOPE, r#"{"headroom_ratio": -1}"#, 400, "headroom_ratio"),
    ("PUT", SCOPE, r#"{"headroom_bytes": 1.5}"#, 400, "headroom_bytes"),
    ("PUT", SCOPE, r#"{"horizon": "soon"}"#, 400, "horizon"),
    ("PUT", "/boundaries/planet", "{}", 400, "planet"),
    ("PUT", "/boundaries/vm:nobody", "{}", 400, "vm"),
    ("GET", "/boundaries/host:", "", 400, "scope"),
    ("GET", "/vms?page_size=-1", "", 400, "page_size"),
    ("GET", "/vms?page_token=foreign", "", 400, "page_token"),
    ("GET", "/violations?page_token=foreign", "", 400, "page_token"),
    ("GET", "/violations?since=soon", "", 400, "since"),
    ("GET", "/violations?vm=nobody", "", 400, "UUID"),
    ("GET", "/hosts?colour=blue", "", 400, "colour"),
    ("GET", "/vms/nobody/history?step=0s", "", 400, "step"),
    ("GET", "/vms/nobody", "", 404, "nobody"),
    ("GET", "/hosts/nobody", "", 404, "nobody"),
    ("GET", "/violations/nobody", "", 404, "nobody"),
    ("POST", "/violations/nobody/acknowledge", r#"{"notes": ""}"#, 400, "notes"),
    ("POST", "/fleet", "{}", 405, "POST"),
    ("GET", "/nothing", "", 404, "/openapi.json"),
];

const BOUNDARIES: &str = "memharvest.registry.v1.BoundaryService";
const VIOLATIONS: &str = "memharvest.registry.v1.ViolationService";
const FLEET: &str = "memharvest.gateway.v1.FleetService";

/// RPCs through the gateway that are refused: service, method, request, code, and what the message must name.
const CALLS: &[(&str, &str, &str, &str, &str)] = &[
    (BOUNDARIES, "GetBoundary", r#"{"scope": "planet"}"#, "INVALID_ARGUMENT", "planet"),
    (BOUNDARIES, "SetBoundary", r#"{"scope": "vm:nobody", "values": {}}"#, "INVALID_ARGUMENT", "scope"),
    (
        BOUNDARIES,
        "SetBoundary",
        r#"{"scope": "fleet", "values": {"headroom_ratio": "NaN"}}"#,
        "INVALID_ARGUMENT",
        "headroom_ratio",
    ),
    (BOUNDARIES, "ListBoundaries", r#"{"page_size": -1}"#, "INVALID_ARGUMENT", "page_size"),
    (BOUNDARIES, "ListBoundaries", r#"{"page_token": "foreign"}"#, "INVALID_ARGUMENT", "page_token"),
    (BOUNDARIES, "WatchBoundaries", r#"{"after_revision": 9999999}"#, "INVALID_ARGUMENT", "after_revision"),
    (VIOLATIONS, "ListViolations", r#"{"vm_id": "nobody"}"#, "INVALID_ARGUMENT", "UUID"),
    (VIOLATIONS, "ListViolations", r#"{"since": "0001-01-01T00:00:00Z"}"#, "INVALID_ARGUMENT", "since"),
    (VIOLATIONS, "GetViolation", r#"{"violation_id": "nobody"}"#, "NOT_FOUND", "nobody"),
    ("memharvest.registry.v1.HarvestService", "QueryHistory", "{}", "INVALID_ARGUMENT", "host_id"),
    (
        "memharvest.registry.v1.AgentService",
        "GetAgent",
        r#"{"agent_id": "no body"}"#,
        "INVALID_ARGUMENT",
        "agent_id",
    ),
    (FLEET, "ListVms", r#"{"page_size": -1}"#, "INVALID_ARGUMENT", "page_size"),
    (FLEET, "ListHosts", r#"{"page_token": "foreign"}"#, "INVALID_ARGUMENT", "page_token"),
    (FLEET, "GetVm", r#"{"vm_id": "nobody"}"#, "NOT_FOUND", "nobody"),
    (FLEET, "ExplainVm", r#"{"vm_id": ""}"#, "NOT_FOUND", "machine"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_refuses_it_and_goes_on() {
    let mesh = Mesh::up(&["--simulate", "1x2"]).await.unwrap();
    let mut surprises = Vec::new();
    for (method, path, body, status, named) in REQUESTS {
        let answer = mesh.send(method.parse::<Method>().unwrap(), path, &[], body).await.unwrap();
        let problem: Value = answer.json().unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or_default();
        if answer.status != *status
            || problem["status"] != *status
            || !detail.contains(named)
            || detail.contains('\n')
        {
            surprises.push(format!("{method} {path} {body}: {} {}", answer.status, answer.text));
        }
    }
    let grpcurl = Grpcurl::new(mesh.address("gateway").unwrap());
    for (service, method, request, code, named) in CALLS {
        let answer = grpcurl.call(&format!("{service}/{method}"), request).await.unwrap();
        if code_name(answer.code) != *code || !answer.text.contains(named) {
            surprises.push(format!("{method} {request}: {answer:?}"));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
    let fleet = mesh.get("/fleet").await.unwrap();
    assert_eq!(fleet["hosts"], 1, "the mesh goes on: {fleet}");
    for process in PROCESSES {
        let log = mesh.log(process);
        assert!(!log.contains("panicked"), "{process}: {log}");
    }
}
