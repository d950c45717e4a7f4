//! The chart: every service takes the settings that it is given there. What Helm and Kubernetes say of it: `packaging/check chart`.

use std::collections::BTreeMap;
use std::process::Command;

use memharvest_end_to_end::yaml::documents;
use serde_json::Value;

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

#[test]
fn every_service_takes_its_environment() {
    for values in std::fs::read_dir(repository("helm/memharvest/examples")).unwrap() {
        let values = values.unwrap().file_name().into_string().unwrap();
        let mut checked = 0;
        for object in objects(&values) {
            for container in object["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten() {
                let service = container["name"].as_str().unwrap();
                let Some(grpc) = container["ports"][0]["containerPort"].as_u64() else { continue };
                let admin = container["ports"][1]["containerPort"].as_u64().unwrap();
                let mut env = environment(container);
                let image = |name: &str, port| (name.to_owned(), format!("0.0.0.0:{port}"));
                env.extend([image("MEMHARVEST_LISTEN", grpc), image("MEMHARVEST_ADMIN_LISTEN", admin)]);
                check(service, &env, &[]);
                checked += 1;
            }
        }
        assert_eq!(checked, 4, "{values}");
    }
}
