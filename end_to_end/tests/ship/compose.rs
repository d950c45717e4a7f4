//! docker-compose.yml: every service takes the settings that it is given there.

use std::process::Command;

use memharvest_end_to_end::yaml::documents;
use serde_json::Value;

use crate::{check, repository};

fn compose() -> Value {
    let text = std::fs::read_to_string(repository("docker-compose.yml")).unwrap();
    documents(&text).unwrap().remove(0)
}

#[test]
fn every_service_takes_its_environment() {
    let compose = compose();
    // The clock's own command, which writes into the folder in which it runs.
    let folder = tempfile::tempdir().unwrap();
    let clock = &compose["services"]["clock"];
    let script = clock["command"][0].as_str().unwrap().replace("$$", "$");
    let shell = clock["entrypoint"][0].as_str().unwrap();
    for _ in 0..2 {
        let ended = Command::new(shell).args(["-euc", &script]).current_dir(folder.path()).status().unwrap();
        assert!(ended.success(), "the clock ends with {ended}, also where it was set before");
    }
    let clock_file = folder.path().join("mesh.toml");

    for service in ["registry", "predictor", "gateway", "collector"] {
        let settings = &compose["services"][service];
        assert_eq!(settings["build"]["target"], service);
        let env = settings["environment"].as_object().unwrap().iter().map(|(name, value)| {
            let value = match (name.as_str(), value.as_str().unwrap()) {
                ("MEMHARVEST_CONFIG", inside) => {
                    assert_eq!(inside, "/etc/memharvest/clock/mesh.toml");
                    clock_file.to_str().unwrap().to_owned()
                }
                ("MEMHARVEST_TRACE", inside) => {
                    let bundled =
                        inside.replace("/usr/share/memharvest", repository("trace/data").to_str().unwrap());
                    assert!(std::fs::exists(&bundled).unwrap(), "{bundled} is not there");
                    bundled
                }
                (_, value) => value.to_owned(),
            };
            (name.clone(), value)
        });
        // What the image adds: it listens on every address.
        let port =
            settings["environment"]["MEMHARVEST_ADVERTISE"].as_str().unwrap().split_once(':').unwrap().1;
        let listen = ("MEMHARVEST_LISTEN".to_owned(), format!("0.0.0.0:{port}"));
        check(service, &env.chain([listen]).collect::<Vec<_>>(), &[]);
        let asks = &settings["healthcheck"]["test"];
        assert_eq!(*asks, serde_json::json!(["CMD", format!("memharvest-{service}"), "--healthcheck"]));
    }
}

#[test]
fn every_file_that_is_mounted_is_there() {
    for (name, service) in compose()["services"].as_object().unwrap() {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            if let Some(path) = source.strip_prefix("./") {
                assert!(repository(path).exists(), "{name} mounts {source}, which is not there");
            }
        }
    }
}
