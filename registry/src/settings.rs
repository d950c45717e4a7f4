//! The registry's settings.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memharvest_services::settings::{Common, Settings, SettingsError, duration};

use crate::identifier;
use crate::presence::Timing;
use crate::store::postgres::Address;

/// A database as the setting names it. It may hold a password: it is not shown.
#[derive(Clone)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Which database it is; `setting` is where it was named.
    ///
    /// # Errors
    /// The setting names none.
    pub fn database(&self, setting: &str) -> Result<Database, SettingsError> {
        let text = self.0.as_str();
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            // The URL may hold a password: it is not repeated.
            return Address::parse(text)
                .map(|address| Database::Postgres(Box::new(address)))
                .map_err(|error| SettingsError::Refused(format!("{setting}: {error}")));
        }
        let refuse = |what: &str| Err(SettingsError::Refused(format!("{setting} {text}: {what}")));
        let path = match text.strip_prefix("sqlite:") {
            Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
            None if text.contains("://") => {
                return Err(SettingsError::Refused(format!(
                    "{setting}: no such kind of database; give the path of a SQLite file or a postgres:// URL"
                )));
            }
            None => text,
        };
        match path {
            "" => refuse("names no file; give the path of a SQLite file"),
            ":memory:" => refuse(
                "a database in memory would lose what was acknowledged; give the path of a SQLite file",
            ),
            path => Ok(Database::Sqlite(Path::new(path).to_owned())),
        }
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.split_once("://").map_or(&self.0, |(scheme, _)| scheme))
    }
}

impl std::str::FromStr for DatabaseUrl {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// Where the registry keeps what must last.
#[derive(Clone, Debug)]
pub enum Database {
    /// A file, which one registry uses.
    Sqlite(PathBuf),
    /// A server, which several registries may share.
    Postgres(Box<Address>),
}

/// The store of memharvest: agents, boundaries, roll-ups and violations.
#[derive(Debug, Clone, clap::Parser)]
#[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9401")), after_help = crate::commands::HELP)]
pub struct RegistrySettings {
    /// Address of the gRPC server
    #[arg(long, value_name = "ADDR:PORT", env = "MEMHARVEST_LISTEN", default_value = "127.0.0.1:7401")]
    pub listen: SocketAddr,

    /// Database: the path of a SQLite file or `sqlite:PATH`, made where it is not there; or `postgres://USER@HOST/DATABASE`, which several
    /// registries may share (its password is better given as PGPASSWORD or in a password file than here)
    #[arg(
        long,
        value_name = "PATH|URL",
        env = "MEMHARVEST_DATABASE",
        hide_env_values = true,
        default_value = "memharvest.db"
    )]
    pub database: DatabaseUrl,

    /// After how long roll-ups of 5 minutes are merged to hourly ones
    #[arg(long, value_name = "DURATION", env = "MEMHARVEST_HOURLY_AFTER", default_value = "7d", value_parser = duration)]
    pub hourly_after: Duration,

    /// How long roll-ups are kept
    #[arg(long, value_name = "DURATION", env = "MEMHARVEST_RETENTION", default_value = "400d", value_parser = duration)]
    pub retention: Duration,

    /// How often agents send a heartbeat; one that misses three is late
    #[arg(long, value_name = "DURATION", env = "MEMHARVEST_HEARTBEAT_INTERVAL", default_value = "10s", value_parser = duration)]
    pub heartbeat_interval: Duration,

    /// How long an agent may be silent before it is lost
    #[arg(long, value_name = "DURATION", env = "MEMHARVEST_LOST_AFTER", default_value = "5m", value_parser = duration)]
    pub lost_after: Duration,

    /// How long the holder of a lease that is revoked has to give the memory back
    #[arg(long, value_name = "DURATION", env = "MEMHARVEST_REVOKE_NOTICE", default_value = "5m", value_parser = duration)]
    pub revoke_notice: Duration,

    /// Id under which this registry lists itself among the agents
    #[arg(long, value_name = "ID", env = "MEMHARVEST_AGENT_ID", default_value = "registry")]
    pub agent_id: String,

    #[command(flatten)]
    #[expect(missing_docs, reason = "its fields are documented")]
    pub common: Common,
}

impl RegistrySettings {
    /// Which database it is.
    ///
    /// # Errors
    /// The setting names none.
    pub fn database(&self) -> Result<Database, SettingsError> {
        self.database.database("--database")
    }

    /// The database's file.
    ///
    /// # Errors
    /// The setting names no SQLite file.
    pub fn database_path(&self) -> Result<PathBuf, SettingsError> {
        match self.database()? {
            Database::Sqlite(path) => Ok(path),
            Database::Postgres(_) => Err(SettingsError::Refused(
                "--database: this works on SQLite files only; use PostgreSQL's own tools, such as pg_dump"
                    .to_owned(),
            )),
        }
    }

    /// When agents count as late and as lost.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing { heartbeat_interval: self.heartbeat_interval, lost_after: self.lost_after }
    }
}

impl Settings for RegistrySettings {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self) -> Result<(), SettingsError> {
        self.database()?;
        self.common.check_mesh_listener("--listen", self.listen)?;
        let refuse = |message: &str| Err(SettingsError::Refused(message.to_owned()));
        if self.retention < Duration::from_hours(1) {
            return refuse("--retention must be at least 1h");
        }
        if self.hourly_after < Duration::from_hours(2) {
            return refuse("--hourly-after must be at least 2h");
        }
        if !(Duration::from_millis(50)..=Duration::from_hours(1)).contains(&self.heartbeat_interval) {
            return refuse("--heartbeat-interval must be from 50ms to 1h");
        }
        if self.lost_after < self.heartbeat_interval * 3 {
            return refuse("--lost-after must be at least three times --heartbeat-interval");
        }
        if self.revoke_notice > Duration::from_hours(24) {
            return refuse("--revoke-notice must be at most 24h");
        }
        if !identifier::is_id(&self.agent_id) {
            return refuse("--agent-id must be 1 to 128 characters of A-Z a-z 0-9 . _ -");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn with(args: &[&str]) -> RegistrySettings {
        RegistrySettings::try_parse_from(["registry"].iter().chain(args)).unwrap()
    }

    #[test]
    fn a_database_is_a_path_or_a_sqlite_url() {
        for (text, path) in [
            ("a/b.db", "a/b.db"),
            ("sqlite:b.db", "b.db"),
            ("sqlite:///b.db", "/b.db"),
            ("sqlite://b.db", "b.db"),
        ] {
            assert_eq!(with(&["--database", text]).database_path().unwrap(), Path::new(path));
        }
    }

    #[test]
    fn every_other_database_is_refused() {
        let refusal = |text: &str| with(&["--database", text]).validate().unwrap_err().to_string();
        assert!(refusal("postgres://user:secret@db:x/y").contains("--database: it is no URL"));
        assert!(!refusal("postgres://user:secret@db:x/y").contains("secret"));
        assert_eq!(
            refusal("postgres://user:secret@db/x?passwd=secret"),
            "--database: the URL has a parameter passwd, which is not known; leave it out"
        );
        assert!(refusal("mysql://db/x").contains("no such kind of database"));
        assert!(refusal("sqlite:").contains("names no file"));
        assert!(refusal(":memory:").contains("would lose"));
    }

    #[test]
    fn a_postgres_url_is_shown_without_its_password() {
        let settings = with(&["--database", "postgres://ann:secret@db:5433/mesh?sslmode=require"]);
        settings.validate().unwrap();
        let Database::Postgres(address) = settings.database().unwrap() else { panic!("not a server") };
        assert_eq!(address.to_string(), "postgres://ann@db:5433/mesh");
        for shown in [format!("{settings:?}"), format!("{address:?}")] {
            assert!(!shown.contains("secret"), "{shown}");
        }
        assert!(settings.database_path().unwrap_err().to_string().contains("pg_dump"));
    }

    #[test]
    fn the_defaults_are_fine_and_nonsense_is_not() {
        let defaults = with(&[]);
        assert!(defaults.validate().is_ok());
        assert_eq!(defaults.retention, Duration::from_hours(400 * 24));
        for args in [
            ["--retention", "5m"],
            ["--hourly-after", "1h"],
            ["--heartbeat-interval", "1ms"],
            ["--lost-after", "1s"],
            ["--revoke-notice", "25h"],
            ["--agent-id", "a b"],
            ["--listen", "0.0.0.0:7401"],
        ] {
            assert!(with(&args).validate().is_err(), "{args:?}");
        }
    }
}
