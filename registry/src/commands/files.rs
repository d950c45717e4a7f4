//! `backup`, `restore` and `check`.

use std::path::Path;

use super::{print, remark};
use crate::settings::RegistrySettings;
use crate::store::sqlite::maintenance;

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
