//! Snapshots in files, one a host: the host's own first, then one for each of its machines.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use memharvest_proto::registry::v1::ModelSnapshot;
use prost::Message;

use super::SnapshotError;

const SUFFIX: &str = ".snapshot";

/// The folder that holds them. Every call blocks.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

/// What was found in a file.
#[derive(Debug)]
pub struct Found {
    /// The file's name without its suffix.
    pub name: String,
    /// What could be read.
    pub snapshots: Vec<ModelSnapshot>,
    /// Why that is not all.
    pub error: Option<SnapshotError>,
}

impl Folder {
    /// Opens or creates it.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Writes a file whole, or leaves the one before as it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, snapshots: &[ModelSnapshot]) -> std::io::Result<u64> {
        let mut bytes = Vec::with_capacity(snapshots.iter().map(|snapshot| snapshot.encoded_len() + 4).sum());
        for snapshot in snapshots {
            snapshot.encode_length_delimited(&mut bytes).map_err(std::io::Error::other)?;
        }
        let unfinished = self.path.join(format!("{name}.unfinished"));
        let mut file = File::create(&unfinished)?;
        file.write_all(&bytes)?;
        // Without it a power cut could leave a file of zeroes under the new name.
        file.sync_data()?;
        fs::rename(&unfinished, self.file(name))?;
        Ok(bytes.len() as u64)
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: &str) -> std::io::Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The names of all files.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Some(name) = entry?.file_name().to_str().and_then(|name| name.strip_suffix(SUFFIX)) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Reads a file, as much of it as can be read.
    #[must_use]
    pub fn read(&self, name: &str) -> Found {
        let name = name.to_owned();
        let bytes = match fs::read(self.file(&name)) {
            Ok(bytes) => bytes,
            Err(error) => return Found { name, snapshots: Vec::new(), error: Some(error.into()) },
        };
        let (mut rest, mut snapshots) = (&bytes[..], Vec::new());
        let mut error = rest.is_empty().then_some(SnapshotError::Empty);
        while !rest.is_empty() {
            let Ok(snapshot) = ModelSnapshot::decode_length_delimited(&mut rest) else {
                error = Some(SnapshotError::CutOff);
                break;
            };
            snapshots.push(snapshot);
        }
        Found { name, snapshots, error }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{SUFFIX}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(vm_id: &str) -> ModelSnapshot {
        ModelSnapshot { vm_id: vm_id.into(), state: vec![7; 100], ..ModelSnapshot::default() }
    }

    #[test]
    fn what_was_written_is_read_and_what_is_cut_off_is_read_so_far() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("snapshots")).unwrap();
        folder.write("h.1", &[snapshot(""), snapshot("a"), snapshot("b")]).unwrap();
        let found = folder.read("h.1");
        assert!(found.error.is_none());
        assert_eq!(found.snapshots, [snapshot(""), snapshot("a"), snapshot("b")]);
        assert_eq!(folder.names().unwrap(), ["h.1"]);

        let file = folder.file("h.1");
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        let found = folder.read("h.1");
        assert_eq!(found.snapshots.len(), 2);
        assert!(matches!(found.error, Some(SnapshotError::CutOff)));
        fs::write(&file, []).unwrap();
        assert!(matches!(folder.read("h.1").error, Some(SnapshotError::Empty)));
        folder.remove("h.1").unwrap();
        folder.remove("h.1").unwrap();
        assert!(matches!(folder.read("h.1").error, Some(SnapshotError::File(_))));
    }
}
