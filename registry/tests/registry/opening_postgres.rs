//! A server that cannot be used is told in one line with a cure; a rolling upgrade leaves both versions working.

use memharvest_registry::store::postgres::{Address, OpenError, PostgresStore};

use crate::postgres::{Server, database, run};
use crate::process::{ends, program};

async fn open(url: &str) -> Result<PostgresStore, OpenError> {
    PostgresStore::open(&Address::parse(url).unwrap()).await
}

async fn refusal(url: &str) -> String {
    let message = open(url).await.unwrap_err().to_string();
    assert!(!message.contains('\n') && !message.contains("secret"), "{message}");
    message
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://ann:secret@127.0.0.1:{free}/mesh");
    let message = refusal(&url).await;
    assert!(
        message.starts_with(&format!("cannot reach postgres://ann@127.0.0.1:{free}/mesh: ")),
        "{message}"
    );
    let (status, stderr) = ends(program(&url)).await;
    assert_eq!(status.code(), Some(1));
    assert!(stderr.lines().last().unwrap().contains("check that the server runs there"), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");
}

#[tokio::test]
async fn a_server_that_refuses_the_user_the_database_or_the_tables() {
    let server = Server::start().await;
    let url = server.database().await;
    let admin = server.url("postgres", "postgres");
    run(&admin, "CREATE ROLE careful LOGIN PASSWORD 'right secret'").await;
    run(&admin, "CREATE ROLE unwanted LOGIN").await;
    run(&admin, "CREATE ROLE poor LOGIN").await;
    run(&admin, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0").await;

    let wrong = refusal(&url.replace("postgres@", "careful:wrong%20secret@")).await;
    assert!(wrong.contains("refuses the connection: password authentication failed"), "{wrong}");
    let unwanted = refusal(&url.replace("postgres@", "unwanted@")).await;
    assert!(unwanted.contains("pg_hba.conf"), "{unwanted}");
    let missing = refusal(&server.url("postgres", "nowhere")).await;
    assert!(missing.contains("create it: CREATE DATABASE nowhere OWNER postgres"), "{missing}");
    run(&url, "REVOKE ALL ON SCHEMA public FROM public").await;
    let poor = refusal(&url.replace("postgres@", "poor@")).await;
    assert!(poor.contains("user poor may not make tables"), "{poor}");
    let latin = refusal(&server.url("postgres", "latin")).await;
    assert!(latin.contains("encoding LATIN1; create it with ENCODING 'UTF8'"), "{latin}");

    run(&url, "GRANT ALL ON SCHEMA public TO careful").await;
    open(&url.replace("postgres@", "careful:right%20secret@")).await.unwrap();
}

#[tokio::test]
async fn registries_that_start_at_the_same_time_make_the_tables_once() {
    let url = database().await;
    let stores = futures::future::join_all((0..4).map(|_| open(&url))).await;
    assert!(stores.iter().all(Result::is_ok), "{stores:?}");
}

#[tokio::test]
async fn a_newer_version_that_only_adds_is_no_hindrance_and_one_that_takes_away_is() {
    let url = database().await;
    open(&url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'later', true, '', 1)";
    run(&url, newer).await;
    open(&url).await.unwrap();
    run(&url, "UPDATE counters SET value = 9999 WHERE name = 'needs_migration'").await;
    let message = refusal(&url).await;
    assert!(
        message.contains("a newer memharvest-registry has changed the tables (migration 9999)"),
        "{message}"
    );
}

#[tokio::test]
async fn tables_of_another_build() {
    let url = database().await;
    open(&url).await.unwrap();
    run(&url, "UPDATE _sqlx_migrations SET checksum = '' WHERE version = 1").await;
    let message = refusal(&url).await;
    assert!(
        message.contains("another build of memharvest-registry has made the tables (migration 1 differs)"),
        "{message}"
    );
}
