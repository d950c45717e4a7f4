//! The program's commands on its database, beside a registry that serves it and without one.

use std::path::Path;

use memharvest_proto::registry::v1::token_service_client::TokenServiceClient;
use memharvest_proto::registry::v1::{
    ListAuditEventsRequest, ListViolationsRequest, RecordViolationsRequest, Role, VerifyTokenRequest,
};
use tokio::process::Command;

use crate::records::{T0, batch_of, violation, vm_window};
use crate::server::{PATIENCE, TestRegistry, database};

/// How a command ended: its exit code, standard output and standard error.
async fn run(database: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memharvest-registry"));
    command.args(args).arg("--database").arg(database).env("USER", "ann").kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn fine(database: &Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = run(database, args).await;
    assert_eq!(code, 0, "{args:?}: {stderr}");
    stdout
}

/// The one line in which a command says why it does nothing.
async fn refused(database: &Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = run(database, args).await;
    assert_eq!((code, stderr.lines().count()), (1, 1), "{args:?}: {stdout}{stderr}");
    stderr
}

async fn record(registry: &TestRegistry, id: &str) {
    let request =
        RecordViolationsRequest { predictor_id: "p".to_owned(), violations: vec![violation(id, 1, T0, 1)] };
    registry.violations().record_violations(request).await.unwrap();
}

async fn recorded(registry: &TestRegistry) -> Vec<String> {
    let list = registry.violations().list_violations(ListViolationsRequest::default()).await.unwrap();
    let mut ids: Vec<_> =
        list.into_inner().violations.into_iter().map(|violation| violation.violation_id).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn a_backup_of_a_running_registry_is_restored_as_it_was() {
    let (folder, path) = database();
    let backup = folder.path().join("monday.db");
    let file = backup.to_str().unwrap();
    let registry = TestRegistry::start(&path, &[]).await;
    registry.harvest().record_harvest(batch_of(vec![vm_window(1, T0)])).await.unwrap();
    record(&registry, "before").await;
    fine(&path, &["backup", file]).await;
    record(&registry, "after").await;
    let again = refused(&path, &["backup", file]).await;
    assert!(again.contains("exists already; choose another name"), "{again}");
    let busy = refused(&path, &["restore", file, "--force"]).await;
    assert!(busy.contains("another registry is using it; stop that one"), "{busy}");
    let found = fine(&path, &["check"]).await;
    assert!(found.contains("1 machines") && found.contains("2 violations"), "{found}");
    assert!(found.ends_with("no faults found\n"), "{found}");
    registry.stop().await;

    let in_the_way = refused(&path, &["restore", file]).await;
    assert!(in_the_way.contains("pass --force to replace it"), "{in_the_way}");
    let registry = TestRegistry::start(&path, &[]).await;
    assert_eq!(recorded(&registry).await, ["after", "before"], "nothing was touched");
    registry.stop().await;
    fine(&path, &["restore", file, "--force"]).await;
    let registry = TestRegistry::start(&path, &[]).await;
    assert_eq!(recorded(&registry).await, ["before"]);
    registry.stop().await;
    let elsewhere = folder.path().join("elsewhere.db");
    fine(&elsewhere, &["restore", file]).await;
    let registry = TestRegistry::start(&elsewhere, &[]).await;
    assert_eq!(recorded(&registry).await, ["before"]);
    registry.stop().await;
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().ends_with(".part")), "{names:?}");
}

#[tokio::test]
async fn a_registry_moves_to_a_server_and_goes_on_there() {
    let (folder, path) = database();
    let url = crate::postgres::database().await;
    let registry = TestRegistry::start(&path, &[]).await;
    registry.harvest().record_harvest(batch_of(vec![vm_window(1, T0)])).await.unwrap();
    record(&registry, "before").await;
    let busy = refused(&path, &["copy", &url]).await;
    assert!(busy.contains("another registry is using it; stop that one"), "{busy}");
    registry.stop().await;
    let missing = refused(&folder.path().join("none.db"), &["copy", &url]).await;
    assert!(missing.contains("there is no file"), "{missing}");
    let file = refused(&path, &["copy", "other.db"]).await;
    assert!(file.contains("no postgres:// URL"), "{file}");

    let (code, _, told) = run(&path, &["copy", &url]).await;
    assert!(code == 0 && told.contains("violations: 1 rows") && told.contains("may start with"), "{told}");
    let again = run(&path, &["copy", &url]).await;
    assert!(again.0 == 1 && again.2.contains("holds agents already; give an empty database"), "{again:?}");
    let registry = TestRegistry::start(Path::new(&url), &[]).await;
    record(&registry, "after").await;
    assert_eq!(recorded(&registry).await, ["after", "before"]);
    registry.stop().await;
}

#[tokio::test]
async fn what_cannot_be_a_backup_is_refused() {
    let (folder, path) = database();
    TestRegistry::start(&path, &[]).await.stop().await;
    let target = folder.path().join("target.db");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let missing = refused(&target, &["restore", &file("none.db")]).await;
    assert!(missing.contains("there is no file"), "{missing}");
    std::fs::write(file("text.db"), "no database".repeat(100)).unwrap();
    let text = refused(&target, &["restore", &file("text.db")]).await;
    assert!(text.contains("it is not a SQLite database"), "{text}");
    std::fs::write(file("empty.db"), "").unwrap();
    let empty = refused(&target, &["restore", &file("empty.db")]).await;
    assert!(empty.contains("belongs to another program"), "{empty}");

    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xa5);
    std::fs::write(file("damaged.db"), &bytes).unwrap();
    let (code, _, stderr) = run(&target, &["restore", &file("damaged.db")]).await;
    assert_eq!(code, 1, "{stderr}");
    let (code, stdout, _) = run(folder.path().join("damaged.db").as_path(), &["check"]).await;
    assert_eq!(code, 1, "{stdout}");
    assert!(!target.exists());
    let nothing = refused(&target, &["backup", &file("copy.db")]).await;
    assert!(nothing.contains("there is no file"), "{nothing}");
    let nowhere = refused(&path, &["backup", &file("missing/copy.db")]).await;
    assert!(nowhere.contains("cannot open database") || nowhere.contains("cannot write"), "{nowhere}");
}

#[tokio::test]
async fn check_tells_orphans_and_other_versions() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    registry.harvest().record_harvest(batch_of(vec![vm_window(1, T0)])).await.unwrap();
    registry.stop().await;
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    sqlx::query("DELETE FROM vms").execute(&pool).await.unwrap();
    let (code, stdout, stderr) = run(&path, &["check"]).await;
    assert_eq!(code, 1);
    assert!(stdout.contains("orphan: 1 roll-ups of an unknown machine"), "{stdout}");
    assert!(stderr.contains("1 faults found; restore a backup"), "{stderr}");
    sqlx::query("INSERT INTO _sqlx_migrations SELECT 9999, '', installed_on, success, checksum, 0 FROM _sqlx_migrations LIMIT 1")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let (_, stdout, _) = run(&path, &["check"]).await;
    assert!(
        stdout.contains("version: a newer memharvest-registry has written it (migration 9999"),
        "{stdout}"
    );
    let refusal = refused(&path, &["token", "list"]).await;
    assert!(refusal.contains("a newer memharvest-registry has written it"), "{refusal}");
}

#[tokio::test]
async fn the_first_token_is_made_on_the_machine_with_and_without_a_registry() {
    let (_folder, path) = database();
    let first = fine(&path, &["token", "create", "--role", "admin"]).await;
    let registry = TestRegistry::start(&path, &[]).await;
    let second =
        fine(&path, &["token", "create", "--role", "viewer", "--name", "wall", "--ttl", "90d"]).await;
    let verify = async |line: &str| {
        let secret = line.trim_end().to_owned();
        let mut client = TokenServiceClient::new(registry.channel.clone());
        client
            .verify_token(VerifyTokenRequest { secret })
            .await
            .map(|found| found.into_inner().token.unwrap())
    };
    assert_eq!(verify(&first).await.unwrap().role(), Role::Admin);
    let wall = verify(&second).await.unwrap();
    assert_eq!((wall.role(), wall.name.as_str(), wall.expires_at.is_some()), (Role::Viewer, "wall", true));
    let listed = fine(&path, &["token", "list"]).await;
    assert_eq!(listed.lines().count(), 2);
    assert!(
        listed.contains("viewer") && listed.contains("holds") && !listed.contains(second.trim_end()),
        "{listed}"
    );
    fine(&path, &["token", "revoke", &wall.token_id, "--reason", "it was a trial"]).await;
    assert!(verify(&second).await.is_err());
    assert!(fine(&path, &["token", "list"]).await.contains("revoked"));
    let unknown = refused(&path, &["token", "revoke", "none"]).await;
    assert!(unknown.contains("token none is not known"), "{unknown}");
    let audit = ListAuditEventsRequest { action: "token".to_owned(), ..Default::default() };
    let events = registry.audit().list_audit_events(audit).await.unwrap().into_inner().events;
    let told: Vec<_> = events.iter().map(|event| (event.action.as_str(), event.author.as_str())).collect();
    assert_eq!(told, [("token.revoke", "ann"), ("token.create", "ann"), ("token.create", "ann")]);
    registry.stop().await;
}

#[tokio::test]
async fn help_names_the_commands_and_nonsense_is_a_usage_error() {
    let (_folder, path) = database();
    let help = async |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memharvest-registry"));
        String::from_utf8(command.args(args).arg("--help").output().await.unwrap().stdout).unwrap()
    };
    let all = help(&[]).await;
    for command in ["backup", "restore", "copy", "check", "token"] {
        assert!(all.contains(&format!("memharvest-registry {command} ")), "{all}");
        assert!(help(&[command]).await.contains("--database"), "{command}");
    }
    assert!(help(&["backup"]).await.contains("Example: memharvest-registry backup"));
    for nonsense in
        [&["backup"][..], &["token", "create"], &["token", "create", "--role", "king"], &["check", "x"]]
    {
        assert_eq!(run(&path, nonsense).await.0, 2, "{nonsense:?}");
    }
    let mut elsewhere = Command::new(env!("CARGO_BIN_EXE_memharvest-registry"));
    let refused = elsewhere.args(["check", "--database", "mysql://db/x"]).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(64), "a bad setting");
    assert!(!path.exists());
}
