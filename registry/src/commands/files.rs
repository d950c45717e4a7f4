//! `backup`, `restore`, `copy` and `check`.

use std::path::Path;

use super::{print, remark};
use crate::settings::{Database, DatabaseUrl, RegistrySettings};
use crate::store::Store as _;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::{SqliteStore, maintenance};

pub(super) async fn backup(settings: &RegistrySettings, file: &Path) -> anyhow::Result<()> {
    let bytes = maintenance::backup(&settings.database_path()?, file).await?;
    remark(&format!("wrote {bytes} bytes to {}", file.display()));
    Ok(())
}

pub(super) async fn restore(settings: &RegistrySettings, file: &Path, force: bool) -> anyhow::Result<()> {
    let database = settings.database_path()?;
    maintenance::restore(file, &database, force).await?;
    remark(&format!("restored {} from {}", database.display(), file.display()));
    Ok(())
}

pub(super) async fn copy(settings: &RegistrySettings, target: &DatabaseUrl) -> anyhow::Result<()> {
    let path = settings.database_path()?;
    let address = match target.database("URL")? {
        Database::Postgres(address) => address,
        Database::Sqlite(_) => anyhow::bail!("URL: is no postgres:// URL; for a file use `backup`"),
    };
    // Opening a file makes it where there is none.
    anyhow::ensure!(path.exists(), "there is no file {}; check the path, or pass --database", path.display());
    let source = SqliteStore::open(&path).await?;
    let target = PostgresStore::open(&address).await?;
    let mut rows = 0;
    let copied = target.import(&source, |table, count| {
        rows += count;
        remark(&format!("{table}: {count} rows"));
    });
    copied.await?;
    target.close().await;
    source.close().await;
    remark(&format!("copied {rows} rows; the registry may start with --database {address}"));
    Ok(())
}

pub(super) async fn check(settings: &RegistrySettings) -> anyhow::Result<()> {
    let found = maintenance::check(&settings.database_path()?).await?;
    print(&format!(
        "migration {} of {}; {} machines, {} hosts, {} boundaries, {} violations, {} leases, {} snapshots, {} tokens, {} audit events",
        found.migration,
        found.newest_migration,
        found.count("vms"),
        found.count("hosts"),
        found.count("boundaries"),
        found.count("violations"),
        found.count("leases"),
        found.count("model_snapshots"),
        found.count("tokens"),
        found.count("audit_events"),
    ))?;
    for fault in &found.faults {
        print(fault)?;
    }
    anyhow::ensure!(found.faults.is_empty(), "{} faults found; restore a backup", found.faults.len());
    print("no faults found")
}
