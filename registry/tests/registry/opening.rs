//! A database that cannot be used is told in one line with a cure; one that can is taken up where it was left.

use std::path::Path;

use memharvest_proto::registry::v1::BoundaryValues;
use memharvest_registry::scope::Scope;
use memharvest_registry::store::sqlite::{OpenError, SqliteStore};
use memharvest_registry::store::{BoundaryStore, Change, Store};

async fn refusal(path: &Path) -> String {
    let error = SqliteStore::open(path).await.unwrap_err();
    let message = error.to_string();
    assert!(!message.contains('\n') && message.starts_with("cannot open database"), "{message}");
    message
}

#[tokio::test]
async fn a_folder_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let message = refusal(&folder.path().join("no/such/folder/registry.db")).await;
    assert!(message.contains("does not exist; create it or pass --database"), "{message}");
}

#[tokio::test]
async fn a_file_that_is_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    std::fs::write(&path, "a shopping list ".repeat(1000)).unwrap();
    assert!(refusal(&path).await.contains("it is not a SQLite database"));
    assert!(refusal(folder.path()).await.contains("it is a directory"));
}

#[tokio::test]
async fn the_database_of_another_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}?mode=rwc", path.display())).await.unwrap();
    sqlx::query("CREATE TABLE songs (name TEXT)").execute(&pool).await.unwrap();
    pool.close().await;
    assert!(refusal(&path).await.contains("it belongs to another program"));
}

#[tokio::test]
async fn a_database_of_a_newer_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'later', 1, x'00', 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    pool.close().await;
    let message = refusal(&path).await;
    assert!(message.contains("a newer memharvest-registry has written it (migration 9999)"), "{message}");
}

#[tokio::test]
async fn a_database_of_another_build() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let message = refusal(&path).await;
    assert!(
        message.contains("another build of memharvest-registry has written it (migration 1 differs)"),
        "{message}"
    );
}

#[tokio::test]
async fn a_database_that_another_registry_uses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let first = SqliteStore::open(&path).await.unwrap();
    assert!(matches!(SqliteStore::open(&path).await, Err(OpenError::InUse(_))));
    drop(first);
    SqliteStore::open(&path).await.unwrap();
}

#[tokio::test]
async fn what_was_stored_is_there_again_and_counts_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let change = Change::default();
    let first = SqliteStore::open(&path).await.unwrap();
    let set = first.set_boundary(&Scope::Fleet, &BoundaryValues::default(), "", &change).await.unwrap();
    first.close().await;
    drop(first);
    let second = SqliteStore::open(&path).await.unwrap();
    assert_eq!(second.boundary(&Scope::Fleet).await.unwrap(), set);
    assert_eq!(*second.boundary_revision().borrow(), 1);
    let again =
        second.set_boundary(&Scope::Fleet, &BoundaryValues::default(), &set.etag, &change).await.unwrap();
    assert_eq!(again.version, 2);
}
