//! Who the host is.

use std::fs;
use std::path::Path;

use memharvest_services::settings::SettingsError;

use crate::reading::Host;
use crate::settings::HostSettings;

/// The host that this process measures, by its settings and the files below `root` (normally `/`).
///
/// Kubernetes shows the same identity as `machineID` of a node.
///
/// # Errors
/// No identity is set, and the machine has none.
pub fn host(settings: &HostSettings, root: &Path) -> Result<Host, SettingsError> {
    let read = |file: &str| fs::read_to_string(root.join(file)).ok().map(|text| text.trim().to_owned());
    let is_machine_id = |id: &String| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = settings.host_id.clone().or_else(|| read("etc/machine-id").filter(is_machine_id)).ok_or_else(
        || {
            SettingsError::Refused(
                "this host has no stable identity: /etc/machine-id is missing or empty; \
             pass --host-id, or create it with systemd-machine-id-setup"
                    .into(),
            )
        },
    )?;
    let name = settings.host_name.clone().or_else(|| read("proc/sys/kernel/hostname"));
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| id.clone());
    Ok(Host { id, name, labels: settings.labels() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(id: Option<&str>) -> HostSettings {
        HostSettings {
            host_id: id.map(str::to_owned),
            host_name: None,
            labels: vec![("a".into(), "b".into())],
        }
    }

    fn root(machine_id: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        fs::write(root.path().join("etc/machine-id"), machine_id).unwrap();
        fs::write(root.path().join("proc/sys/kernel/hostname"), "node-7\n").unwrap();
        root
    }

    #[test]
    fn the_machine_id_unless_another_is_set() {
        let root = root("0123456789abcdef0123456789abcdef\n");
        let found = host(&settings(None), root.path()).unwrap();
        assert_eq!((found.id.as_str(), found.name.as_str()), ("0123456789abcdef0123456789abcdef", "node-7"));
        assert_eq!(found.labels["a"], "b");
        assert_eq!(host(&settings(Some("h1")), root.path()).unwrap().id, "h1");
    }

    #[test]
    fn no_identity_is_refused_with_a_cure() {
        for machine_id in ["", "uninitialized\n"] {
            let error = host(&settings(None), root(machine_id).path()).unwrap_err();
            assert!(error.to_string().contains("--host-id"), "{error}");
        }
    }
}
