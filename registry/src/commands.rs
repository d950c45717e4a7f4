//! What the program does to its database by hand, beside serving it: backups, a move to a server, checks, and the first token.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use memharvest_services::settings::{self, EXIT_BAD_SETTINGS, LoadError, SettingsError};

use crate::SERVICE;
use crate::settings::{DatabaseUrl, RegistrySettings};

mod files;
mod token;

/// What the first argument must be for a command; with anything else the program serves.
const NAMES: [&str; 5] = ["backup", "restore", "copy", "check", "token"];

/// The commands, for the end of the program's `--help`.
pub const HELP: &str = "Commands, each with a --help of its own; without one the registry serves:
  memharvest-registry backup FILE     write a copy of the database, also while it is served
  memharvest-registry restore FILE    put such a copy in the database's place
  memharvest-registry copy URL        copy everything from a SQLite file to an empty PostgreSQL database
  memharvest-registry check           look for damage, orphans and an unknown version
  memharvest-registry token           make, list and end tokens, such as the first one of an admin";

/// Commands on the registry's database
#[derive(Debug, Parser)]
#[command(name = "memharvest-registry", version, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
    /// Database, as the registry has it: the path of a SQLite file [default: as the environment, the settings or else
    /// memharvest.db say]
    #[arg(long, global = true, value_name = "PATH|URL")]
    database: Option<OsString>,
    /// The registry's TOML file with settings, for its `database`
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<OsString>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a copy of the database to a file, also while a registry serves it
    ///
    /// The copy is of one moment, is checked before it gets its name, and holds everything: tokens (as hashes), the audit log, models.
    /// Exit code 1 where there is no database, where the file exists already, or where the disk is full; nothing half-written is left.
    #[command(
        after_help = "Example: memharvest-registry backup --database /var/lib/memharvest/memharvest.db monday.db"
    )]
    Backup {
        /// The file to write; must not exist
        file: PathBuf,
    },
    /// Put a backup in the place of the database
    ///
    /// The registry must not run. The backup is checked first; a database that is there stays unless --force is given.
    #[command(
        after_help = "Example: memharvest-registry restore --database /var/lib/memharvest/memharvest.db monday.db"
    )]
    Restore {
        /// The backup
        file: PathBuf,
        /// Replace a database that is there
        #[arg(long)]
        force: bool,
    },
    /// Copy everything from the SQLite file to an empty PostgreSQL database
    ///
    /// The registry must not run. The file stays as it is; the copy is made in one transaction, so that a copy which breaks off leaves
    /// nothing behind. Afterwards start the registry with the URL as its database. Exit code 1 where the target holds anything already.
    #[command(
        after_help = "Example: memharvest-registry copy --database /var/lib/memharvest/memharvest.db postgres://memharvest@db/memharvest\n\
                      The password is better given as PGPASSWORD or in a password file than in the URL."
    )]
    Copy {
        /// The database to fill: `postgres://USER@HOST/DATABASE`
        #[arg(value_name = "URL")]
        target: DatabaseUrl,
    },
    /// Look for damage, orphaned rows and a version that this program does not know
    ///
    /// Reads only, also while a registry serves the database. Exit code 1 where something is wrong, told line by line.
    Check,
    /// Make, list and end tokens on the database itself, without a gateway
    ///
    /// Works also while a registry serves the database.
    #[command(subcommand)]
    Token(token::TokenCommand),
}

/// Whether the program's first argument is a command.
#[must_use]
pub fn is_one(first: Option<OsString>) -> bool {
    first.is_some_and(|first| NAMES.iter().any(|name| first == *name))
}

/// Runs a command. Exit codes: 0 fine, 2 usage, 64 bad settings, 1 anything else, told in one line on stderr.
pub fn main(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let line = match CommandLine::try_parse_from(args) {
        Ok(line) => line,
        Err(error) => return told_by_clap(&error),
    };
    let settings = match settings_of(&line, env) {
        Ok(settings) => settings,
        Err(LoadError::Usage(error)) => return told_by_clap(&error),
        Err(LoadError::Settings(error)) => return fail(&error.into()),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    match runtime.block_on(run(line.command, &settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn run(command: Command, settings: &RegistrySettings) -> anyhow::Result<()> {
    match command {
        Command::Backup { file } => files::backup(settings, &file).await,
        Command::Restore { file, force } => files::restore(settings, &file, force).await,
        Command::Copy { target } => files::copy(settings, &target).await,
        Command::Check => files::check(settings).await,
        Command::Token(command) => token::run(command, settings).await,
    }
}

/// The registry's settings, so that a command finds the database where the registry does.
fn settings_of(
    line: &CommandLine,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<RegistrySettings, LoadError> {
    let mut args = vec![OsString::from(SERVICE.name)];
    for (flag, value) in [("--database", &line.database), ("--config", &line.config)] {
        args.extend(value.iter().flat_map(|value| [OsString::from(flag), value.clone()]));
    }
    settings::load(&SERVICE, args, env)
}

fn told_by_clap(error: &clap::Error) -> ExitCode {
    // Nothing to do about a stream that is closed.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

#[expect(clippy::print_stderr, reason = "the one place where a command says why it fails")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("{}: {}", SERVICE.name, format!("{error:#}").replace('\n', " "));
    if error.chain().any(<dyn std::error::Error>::is::<SettingsError>) {
        ExitCode::from(EXIT_BAD_SETTINGS)
    } else {
        ExitCode::FAILURE
    }
}

/// Writes a line of what was asked for; that nobody reads it is told.
fn print(line: &str) -> anyhow::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").context("cannot write to standard output")
}

/// Writes a remark that a script which reads the answer does not want.
#[expect(clippy::print_stderr, reason = "a remark for the person who asked")]
fn remark(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_command_is_known() {
        CommandLine::command().debug_assert();
        let mut names: Vec<_> =
            CommandLine::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        names.sort();
        let mut known = NAMES;
        known.sort_unstable();
        assert_eq!(names, known);
        assert!(NAMES.iter().all(|name| HELP.contains(&format!("memharvest-registry {name} "))));
        assert!(is_one(Some("backup".into())) && !is_one(Some("--check".into())) && !is_one(None));
    }

    #[test]
    fn a_command_finds_the_database_where_the_registry_does() {
        let line =
            |args: &[&str]| CommandLine::try_parse_from(["memharvest-registry"].iter().chain(args)).unwrap();
        let env = || [(OsString::from("MEMHARVEST_DATABASE"), OsString::from("env.db"))];
        let path = |args: &[&str]| settings_of(&line(args), env()).unwrap().database_path().unwrap();
        assert_eq!(path(&["check"]), PathBuf::from("env.db"));
        assert_eq!(path(&["backup", "b.db", "--database", "flag.db"]), PathBuf::from("flag.db"));
        assert_eq!(path(&["token", "--database", "flag.db", "list"]), PathBuf::from("flag.db"));
    }
}
