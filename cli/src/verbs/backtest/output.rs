//! Files that are either whole or not there.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;

/// A file that is being written beside its place, and moves there once it is whole. What is there already and is no
/// regular file (a pipe, `/dev/null`) is written to as it is.
#[derive(Debug)]
pub(super) struct OutputFile {
    path: PathBuf,
    to: Sink,
}

#[derive(Debug)]
enum Sink {
    Beside(NamedTempFile),
    Straight(File),
}

impl OutputFile {
    /// Opens it, so that a path which cannot be written to is told before the work and not after it.
    pub(super) fn begin(path: &Path) -> io::Result<Self> {
        let special = path.metadata().is_ok_and(|there| !there.is_file());
        let to = if special {
            Sink::Straight(OpenOptions::new().write(true).open(path)?)
        } else {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let mut beside = tempfile::Builder::new();
            // As anything that a program writes: what the user's mask leaves of it.
            beside.permissions(Permissions::from_mode(0o666));
            Sink::Beside(beside.tempfile_in(folder.unwrap_or(Path::new(".")))?)
        };
        Ok(Self { path: path.to_owned(), to })
    }

    /// Writes everything and puts the file in its place; gzipped where its name ends in `.gz`.
    pub(super) fn write(mut self, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let file: &mut dyn Write = match &mut self.to {
            Sink::Beside(file) => file,
            Sink::Straight(file) => file,
        };
        let mut buffered = BufWriter::with_capacity(1 << 16, file);
        if self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
            let mut packed =
                BufWriter::with_capacity(1 << 16, GzEncoder::new(&mut buffered, Compression::default()));
            content(&mut packed)?;
            packed.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?;
        } else {
            content(&mut buffered)?;
        }
        buffered.flush()?;
        drop(buffered);
        if let Sink::Beside(file) = self.to {
            file.persist(&self.path).map_err(|error| error.error)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn a_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let failed = OutputFile::begin(&path).unwrap().write(|_| Err(io::Error::other("full")));
        assert!(failed.is_err() && !path.exists());
        OutputFile::begin(&path).unwrap().write(|out| out.write_all(b"x\n")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn the_name_says_whether_it_is_packed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv.gz");
        OutputFile::begin(&path).unwrap().write(|out| out.write_all(b"x\n")).unwrap();
        let mut text = String::new();
        GzDecoder::new(File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x\n");
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_at_once() {
        assert!(OutputFile::begin(Path::new("/nowhere/at/all.csv")).is_err());
    }

    #[test]
    fn what_is_no_regular_file_stays_what_it_is() {
        let null = Path::new("/dev/null");
        OutputFile::begin(null).unwrap().write(|out| out.write_all(b"x")).unwrap();
        assert!(!null.metadata().unwrap().is_file());
    }
}
