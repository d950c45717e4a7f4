//! The chart: every service takes the settings that it is given there. What Helm and Kubernetes say of it: `packaging/check chart`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use memharvest_end_to_end::mesh::binary;
use memharvest_end_to_end::yaml::documents;
use serde_json::Value;
use tempfile::TempDir;

use crate::{check, repository};

/// The objects that Helm makes of the chart's defaults and an example.
fn objects(values: &str) -> Vec<Value> {
    let output = Command::new(repository(".tools/ship/helm3"))
        .args(["template", "memharvest"])
        .arg(repository("helm/memharvest"))
        .args(["--namespace", "mesh", "--values"])
        .arg(repository("helm/memharvest/examples").join(values))
        .output()
        .unwrap();
    assert!(output.status.success(), "{values}: {}", String::from_utf8_lossy(&output.stderr));
    documents(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

/// A container's environment as Kubernetes would make it. A Secret's value is told by its key.
fn environment(container: &Value) -> Vec<(String, String)> {
    let mut known = BTreeMap::from([("POD_IP".to_owned(), "10.1.2.3".to_owned())]);
    for variable in container["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        let source = &variable["valueFrom"];
        let mut value = match (variable["value"].as_str(), source["fieldRef"]["fieldPath"].as_str()) {
            (Some(value), _) => value.to_owned(),
            (None, Some("status.podIP")) => "10.1.2.3".to_owned(),
            (None, Some("metadata.name" | "spec.nodeName")) => "memharvest-node-7".to_owned(),
            _ if source["secretKeyRef"]["key"] == "url" => "postgres://memharvest@db/memharvest".to_owned(),
            _ => "secret".to_owned(),
        };
        for (earlier, its) in &known {
            value = value.replace(&format!("$({earlier})"), its);
        }
        let before = known.insert(name.to_owned(), value);
        assert!(before.is_none() || name == "POD_IP", "{name} is set twice");
    }
    known.retain(|name, _| !name.starts_with("POD_"));
    known.into_iter().collect()
}

/// Runs what the chart's Job runs, and hands out the folder with an authority, and a certificate for each service in a folder of its own.
fn certificates() -> TempDir {
    let objects = objects("gateway-api.yaml");
    let job = objects.iter().find(|object| object["kind"] == "Job").unwrap();
    let container = &job["spec"]["template"]["spec"]["initContainers"][0];
    let folder = tempfile::tempdir().unwrap();
    let inside = |path: &str| folder.path().join(path).display().to_string();
    let script = container["args"][0].as_str().unwrap();
    let script = script.replace("/work", &inside("work")).replace("/authority/", &inside("authority/"));
    let program = binary("memharvest").unwrap();
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    std::fs::create_dir(folder.path().join("authority")).unwrap();

    let mut made: Vec<BTreeSet<String>> = Vec::new();
    let mut authorities = Vec::new();
    // The second time is the CronJob's, which finds the authority in its Secret.
    for _ in 0..2 {
        let ran = Command::new("/bin/bash")
            .args(["-euc", &script])
            .env_clear()
            .env("PATH", &path)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let secrets = std::fs::read_to_string(inside("work/secrets/all.yaml")).unwrap();
        let secrets = documents(&secrets).unwrap();
        made.push(secrets.iter().map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect());
        authorities.push(secrets[0]["data"].clone());
        for key in ["tls.crt", "tls.key"] {
            let text = Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let mut text = text.unwrap();
            let encoded = secrets[0]["data"][key].as_str().unwrap();
            text.stdin.take().unwrap().write_all(encoded.as_bytes()).unwrap();
            let decoded = text.wait_with_output().unwrap().stdout;
            assert!(decoded.starts_with(b"-----BEGIN "), "{key}");
            std::fs::write(folder.path().join("authority").join(key), decoded).unwrap();
        }
    }
    assert_eq!(authorities[0], authorities[1], "the authority must stay, or nobody knows anybody");
    let wanted =
        ["authority", "gateway", "predictor", "registry"].map(|part| format!("memharvest-{part}-tls"));
    assert_eq!(made, [BTreeSet::from(wanted.clone()), BTreeSet::from(wanted)]);

    // A collector asks `certs serve`; the same authority signs.
    let collector = [
        "certs",
        "issue",
        "collector",
        "memharvest-node-7",
        "--ca-dir",
        &inside("work/ca"),
        "--out",
        &inside("work/collector"),
    ];
    let issued = Command::new(program).args(collector).output().unwrap();
    assert!(issued.status.success(), "{}", String::from_utf8_lossy(&issued.stderr));
    folder
}

/// Every Secret with a certificate that a pod of mode `job` waits for is made by the Job.
#[test]
fn the_job_makes_what_the_pods_wait_for() {
    for object in objects("gateway-api.yaml") {
        for volume in object["spec"]["template"]["spec"]["volumes"].as_array().into_iter().flatten() {
            let projected = volume["projected"]["sources"].as_array().into_iter().flatten();
            let names =
                projected.map(|source| &source["secret"]["name"]).chain([&volume["secret"]["secretName"]]);
            for name in names.filter_map(Value::as_str) {
                let known = ["authority", "gateway", "predictor", "registry"];
                assert!(known.iter().any(|part| name == format!("memharvest-{part}-tls")), "{name}");
            }
        }
    }
}

#[test]
fn every_service_takes_its_environment() {
    let certificates = certificates();
    for values in std::fs::read_dir(repository("helm/memharvest/examples")).unwrap() {
        let values = values.unwrap().file_name().into_string().unwrap();
        let mut checked = 0;
        for object in objects(&values) {
            for container in object["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten()
            {
                let service = container["name"].as_str().unwrap();
                // One of the four, and not what gives them certificates.
                let ports = [0_usize, 1].map(|i| container["ports"][i]["containerPort"].as_u64());
                let [Some(grpc), Some(admin)] = ports else { continue };
                let mut env = environment(container);
                let mounted = certificates.path().join("work").join(service);
                for (_, value) in &mut env {
                    *value = value.replace("/etc/memharvest/tls", mounted.to_str().unwrap());
                }
                let image = |name: &str, port| (name.to_owned(), format!("0.0.0.0:{port}"));
                env.extend([image("MEMHARVEST_LISTEN", grpc), image("MEMHARVEST_ADMIN_LISTEN", admin)]);
                check(service, &env, &[]);
                checked += 1;
            }
        }
        assert_eq!(checked, 4, "{values}");
    }
}
