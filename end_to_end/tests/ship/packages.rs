//! The packages: each service takes the settings that its package brings, and its unit starts it with them.

use crate::{check, repository};

#[test]
fn every_service_takes_the_settings_of_its_package() {
    for service in ["registry", "predictor", "gateway", "collector"] {
        let file = format!("packaging/etc/{service}.toml");
        check(service, &[], &["--config", repository(&file).to_str().unwrap()]);
        let unit =
            std::fs::read_to_string(repository(&format!("packaging/systemd/memharvest-{service}.service")))
                .unwrap();
        let start =
            format!("ExecStart=/usr/bin/memharvest-{service} --config /etc/memharvest/{service}.toml\n");
        assert!(unit.contains(&start), "{unit}");
        assert!(unit.contains(&format!("User=memharvest-{service}\n")), "{unit}");
    }
}
