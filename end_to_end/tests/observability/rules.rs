//! The rules are well formed and do what they say, and every alert has its page.

use std::collections::BTreeSet;

use memharvest_end_to_end::prometheus::promtool;

use super::{shipped, text_of};

#[test]
fn promtool_finds_nothing_wrong() {
    let folder = shipped("observability/prometheus");
    promtool(&folder, &["check", "rules", "recording_rules.yml", "alerts.yml"]).unwrap();
    promtool(&folder, &["check", "config", "scrape.yml"]).unwrap();
    promtool(&folder, &["check", "config", "federate.yml"]).unwrap();
}

#[test]
fn every_rule_does_what_it_says() {
    let folder = shipped("observability/prometheus");
    promtool(&folder, &["test", "rules", "tests/recording_rules_test.yml", "tests/alerts_test.yml"]).unwrap();
}

#[test]
fn every_alert_is_tested_and_has_a_runbook() {
    let (alerts, tests) = (
        text_of("observability/prometheus/alerts.yml"),
        text_of("observability/prometheus/tests/alerts_test.yml"),
    );
    let values = |key: &str| -> Vec<String> {
        let lines = alerts.lines().filter_map(|line| line.trim().strip_prefix(key));
        lines.map(|value| value.trim().to_owned()).collect()
    };
    let (names, runbooks) = (values("- alert:"), values("runbook:"));
    assert!(names.len() >= 7, "{names:?}");
    assert_eq!(names.len(), runbooks.len());
    let index = text_of("docs/runbooks/README.md");
    for (name, runbook) in names.iter().zip(&runbooks) {
        assert!(text_of(runbook).contains(name), "{runbook} does not speak of {name}");
        assert!(index.contains(name), "the index does not list {name}");
        let fires = format!("- alertname: {name}\n");
        assert!(tests.contains(&fires), "no test lets {name} fire");
        assert!(
            tests.contains(&format!("{{alertname: {name}, eval_time: 9h}}")),
            "no test keeps {name} silent"
        );
    }
    let written: BTreeSet<String> = std::fs::read_dir(shipped("docs/runbooks"))
        .unwrap()
        .map(|entry| format!("docs/runbooks/{}", entry.unwrap().file_name().to_string_lossy()))
        .filter(|page| !page.ends_with("README.md"))
        .collect();
    assert_eq!(written, runbooks.into_iter().collect(), "every page belongs to an alert");
}
