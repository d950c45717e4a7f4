//! Where a mesh keeps what must last, guarded so that two meshes never share it.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::source::Kind;

/// A folder that this process alone uses, until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    temporary: Option<TempDir>,
    _lock: File,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// Another mesh uses it.
    #[error(
        "{} is in use by another `memharvest up` (pid {pid}); stop that one, or choose another --data-dir",
        .path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who uses it.
        pid: String,
    },
    /// It holds what was measured on another clock.
    #[error(
        "{} holds the history of {held}, and {wanted} runs on another clock; choose an empty --data-dir{more}",
        .path.display()
    )]
    OtherClock {
        /// The folder.
        path: PathBuf,
        /// What is stored there.
        held: &'static str,
        /// What was to be started.
        wanted: &'static str,
        /// A further cure, where there is one.
        more: &'static str,
    },
    /// The system refused.
    #[error("cannot use {} as data directory: {source}; choose another by --data-dir", .path.display())]
    Io {
        /// The folder or the file in it.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Neither `XDG_DATA_HOME` nor HOME is set.
    #[error("there is no home directory to keep data in: HOME is not set; choose a folder by --data-dir")]
    NoHome,
}

/// Holds the store of a mesh that ran here before.
const STORE: &str = "registry.db";
/// Says what kind of source it was fed from.
const KIND: &str = "source";

impl DataDir {
    /// Takes the folder that was asked for; by default the user's own for live machines, and a temporary one otherwise.
    ///
    /// # Errors
    /// When it is in use, holds history of another clock, or cannot be written.
    pub(crate) fn open(asked: Option<&Path>, kind: Kind) -> Result<Self, DataDirError> {
        let (path, temporary) = match asked {
            Some(path) => (path.to_owned(), None),
            None if kind == Kind::Live => (home_of_data()?, None),
            None => {
                let made = tempfile::Builder::new().prefix("memharvest-").tempdir();
                let made = made.map_err(|source| DataDirError::Io { path: std::env::temp_dir(), source })?;
                (made.path().to_owned(), Some(made))
            }
        };
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { path, source }
        };
        std::fs::create_dir_all(path.join("logs")).map_err(io(&path))?;
        let path = path.canonicalize().map_err(io(&path))?;
        let lock = lock(&path)?;
        refuse_other_clock(&path, kind)?;
        std::fs::write(path.join(KIND), kind.word()).map_err(io(&path))?;
        Ok(Self { path, temporary, _lock: lock })
    }

    /// The folder, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is removed at the end.
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// The log of a process.
    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.path.join("logs").join(format!("{process}.log"))
    }

    /// The registry's store.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }
}

fn home_of_data() -> Result<PathBuf, DataDirError> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    variable("XDG_DATA_HOME")
        .or_else(|| Some(variable("HOME")?.join(".local/share")))
        .map(|folder| folder.join("memharvest"))
        .ok_or(DataDirError::NoHome)
}

/// Holds the lock as long as the file is open, so that even a killed process leaves none behind.
fn lock(folder: &Path) -> Result<File, DataDirError> {
    let path = folder.join("lock");
    let io = |source| DataDirError::Io { path: path.clone(), source };
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(DataDirError::InUse { path: folder.to_owned(), pid: pid.trim().to_owned() });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

fn refuse_other_clock(path: &Path, wanted: Kind) -> Result<(), DataDirError> {
    if !path.join(STORE).exists() {
        return Ok(());
    }
    let word = std::fs::read_to_string(path.join(KIND)).unwrap_or_default();
    let held = Kind::from_word(word.trim()).unwrap_or(Kind::Live);
    if held == Kind::Live && wanted == Kind::Live {
        return Ok(());
    }
    Err(DataDirError::OtherClock {
        path: path.to_owned(),
        held: held.article(),
        wanted: wanted.article(),
        more: if wanted == Kind::Live { "" } else { ", or leave it out: a temporary folder is used then" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_mesh_is_refused_with_the_pid_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(Some(folder.path()), Kind::Live).unwrap();
        let said = DataDir::open(Some(folder.path()), Kind::Live).unwrap_err().to_string();
        assert!(said.contains(&format!("pid {}", std::process::id())), "{said}");
        drop(first);
        DataDir::open(Some(folder.path()), Kind::Live).unwrap();
    }

    #[test]
    fn a_replay_is_refused_where_history_is_and_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        let open = |kind| DataDir::open(Some(folder.path()), kind).map(drop);
        open(Kind::Live).unwrap();
        open(Kind::Replay).unwrap();
        std::fs::write(folder.path().join(STORE), "").unwrap();
        for kind in [Kind::Live, Kind::Replay, Kind::Simulation] {
            let said = open(kind).unwrap_err().to_string();
            assert!(said.contains("history of a replay") && said.contains("--data-dir"), "{said}");
        }
    }

    #[test]
    fn a_temporary_folder_vanishes_with_its_owner() {
        let made = DataDir::open(None, Kind::Replay).unwrap();
        let path = made.path().to_owned();
        assert!(path.is_dir() && made.is_temporary());
        drop(made);
        assert!(!path.exists());
    }
}
