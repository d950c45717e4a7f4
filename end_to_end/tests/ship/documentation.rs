//! The docs: every command is run that can be, all others are at least parsed, and `docs/commands.md` says which is which.
//!
//! A fenced block of `sh` is run, page by page in the order in which it stands there, against a mesh that replays the bundled
//! trace. `sh,cluster`, `sh,engine`, `sh,root` and `sh,host` name what a test has not got; `sh,builds` and `sh,long` take too long; `sh,server`
//! runs until it is told to stop.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use memharvest_end_to_end::mesh::{Mesh, binary};
use memharvest_end_to_end::tools;
use memharvest_end_to_end::wait::wait_for;
use tokio::process::Command;

use crate::repository;

const PATIENCE: Duration = Duration::from_mins(4);

/// A fenced block of a page.
struct Block {
    page: String,
    /// What stands behind the fence, such as `sh,root`.
    info: String,
    text: String,
}

fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for folder in ["docs", "docs/runbooks"] {
        let entries = std::fs::read_dir(repository(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let pages_of = names.filter(|name| Path::new(name).extension().is_some_and(|ext| ext == "md"));
        pages.extend(pages_of.map(|name| format!("{folder}/{name}")));
    }
    pages[2..].sort();
    pages
}

fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(repository(&page)).unwrap();
        let mut open = false;
        for line in text.lines() {
            match (line.strip_prefix("```"), open) {
                (Some(info), false) => {
                    blocks.push(Block { page: page.clone(), info: info.to_owned(), text: String::new() });
                    open = true;
                }
                (Some(_), true) => open = false,
                (None, true) => {
                    let block = blocks.last_mut().unwrap();
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, false) => {}
            }
        }
        assert!(!open, "{page}: a fence is not closed");
    }
    blocks
}

async fn bash(args: &[&str], text: &str, prepare: impl FnOnce(&mut Command)) -> anyhow::Result<String> {
    let mut command = Command::new("bash");
    command.args(args).args(["-c", text]).stdin(Stdio::null()).kill_on_drop(true);
    prepare(&mut command);
    let output = tokio::time::timeout(PATIENCE, command.output()).await??;
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    ensure!(output.status.success(), "it ended with {}:\n{said}", output.status);
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_can_be_run_works() {
    let trace = repository("trace/data/demo.csv.gz");
    let trace = trace.to_str().unwrap();
    let mesh = Mesh::up(&["--trace", trace, "--speed", "300", "--interval", "5m", "--cold-start", "1h"])
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    // An answer that is an error is one here too.
    let curl = folder.path().join("curl");
    std::fs::write(&curl, "#!/bin/sh\nexec /usr/bin/curl --fail-with-body \"$@\"\n").unwrap();
    std::fs::set_permissions(&curl, std::fs::Permissions::from_mode(0o755)).unwrap();
    wait_for(PATIENCE, "something to harvest", async || {
        let fleet = mesh.get("/fleet").await?;
        ensure!(fleet["harvestable_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 30), "{fleet}");
        Ok(())
    })
    .await
    .unwrap();

    let gateway = mesh.address("gateway").unwrap();
    let admin = |process| mesh.admin_url(process).unwrap().trim_start_matches("http://").to_owned();
    let places = [
        ("http://127.0.0.1:8080", format!("http://{gateway}")),
        ("127.0.0.1:8080", gateway.clone()),
        ("127.0.0.1:9401", admin("registry")),
        ("127.0.0.1:9403", admin("collector")),
        ("127.0.0.1:9404", admin("gateway")),
        ("/var/lib/memharvest-ca", "ca".to_owned()),
        (
            "/var/lib/memharvest-registry/memharvest.db",
            mesh.data_dir().join("registry.db").display().to_string(),
        ),
    ];
    let mut scripts: BTreeMap<String, String> = BTreeMap::new();
    for block in blocks().into_iter().filter(|block| block.info == "sh") {
        let text = places.iter().fold(block.text, |text, (there, here)| text.replace(there, here));
        scripts.entry(block.page).or_default().push_str(&text);
    }
    assert!(scripts.contains_key("docs/usage.md"));
    let programs = binary("memharvest").unwrap();
    let path = [
        folder.path(),
        programs.parent().unwrap(),
        &repository(".tools/python/bin"),
        Path::new("/usr/local/bin:/usr/bin:/bin"),
    ];
    let path = path.map(|folder| folder.to_str().unwrap().to_owned()).join(":");
    // What the reader of a page has set, or looks at.
    let vms = mesh.get("/vms?page_size=1").await.unwrap();
    let text = |field: &str| vms["vms"][0][field].as_str().unwrap().to_owned();
    for (page, script) in scripts {
        // In a folder of his own, with a trace of his own.
        let own = folder.path().join(page.replace('/', "_"));
        std::fs::create_dir(&own).unwrap();
        std::os::unix::fs::symlink(repository("trace"), own.join("trace")).unwrap();
        std::fs::copy(trace, own.join("usage.csv.gz")).unwrap();
        let ran = bash(&["-euo", "pipefail"], &script, |command| {
            command.current_dir(&own).env_clear();
            command.envs([("PATH", path.as_str()), ("USER", "ann"), ("HOME", own.to_str().unwrap())]);
            command.env("MEMHARVEST_URL", format!("http://{gateway}"));
            command
                .env("G", format!("http://{gateway}/api/v1"))
                .env("HOST", text("host"))
                .env("VM", text("vm"));
        });
        ran.await.unwrap_or_else(|error| panic!("{page}: {error:#}\n{script}"));
    }
}

#[tokio::test]
async fn every_other_command_is_parsed() {
    let excuses = ["sh,builds", "sh,cluster", "sh,engine", "sh,host", "sh,long", "sh,root", "sh,server"];
    for block in blocks().into_iter().filter(|block| block.info.starts_with("sh,")) {
        assert!(excuses.contains(&block.info.as_str()), "{}: a block of {}", block.page, block.info);
        bash(&["-n"], &block.text, |_| ()).await.unwrap_or_else(|error| panic!("{}: {error:#}", block.page));
    }
    for block in blocks() {
        let known = ["sh", "promql", "text", "toml", "yaml", "json", "rust"].contains(&block.info.as_str());
        assert!(known || block.info.starts_with("sh,"), "{}: a block of `{}`", block.page, block.info);
    }
}

/// Prometheus reads every expression.
#[tokio::test]
async fn every_expression_is_one() {
    let mut rules = "groups:\n  - name: docs\n    rules:\n".to_owned();
    for block in blocks().into_iter().filter(|block| block.info == "promql") {
        for text in block.text.split("\n\n") {
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            let _ = writeln!(rules, "      - {{record: docs, expr: {:?}}}", lines.join(" "));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    let output = tools::program("promtool").unwrap().args(["check", "rules"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_page_says_which_is_which() {
    let mut counts: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for block in blocks().into_iter().filter(|block| block.info == "promql" || block.info.starts_with("sh")) {
        *counts.entry(block.page).or_default().entry(block.info).or_default() += 1;
    }
    let mut table = "| page | run | parsed only |\n| --- | ---: | --- |\n".to_owned();
    for (page, counts) in counts {
        let parsed: Vec<String> = counts
            .iter()
            .filter(|(info, _)| *info != "sh")
            .map(|(info, count)| format!("{count} ({})", info.trim_start_matches("sh,")))
            .collect();
        let run = counts.get("sh").copied().unwrap_or_default();
        let _ = writeln!(table, "| {page} | {run} | {} |", parsed.join(", "));
    }
    let said = std::fs::read_to_string(repository("docs/commands.md")).unwrap();
    assert!(said.contains(&table), "docs/commands.md should say:\n{table}");
}

#[tokio::test]
async fn the_reference_is_what_the_programs_say() {
    for (page, part) in [("docs/configuration.md", "configuration"), ("docs/api.md", "api")] {
        let script = repository("packaging/write_reference");
        let programs = binary("memharvest").unwrap();
        let output = Command::new(script).arg(part).arg(programs.parent().unwrap()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let written = String::from_utf8(output.stdout).unwrap();
        let committed = std::fs::read_to_string(repository(page)).unwrap();
        assert!(
            committed == written,
            "{page} is not what the programs say: packaging/write_reference {part} > {page}"
        );
    }
}
