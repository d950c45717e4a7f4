//! The four programs of the mesh, found beside this one.

use std::path::{Path, PathBuf};

/// Where the four programs are.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    folder: PathBuf,
}

/// The programs are not there.
#[derive(Debug, thiserror::Error)]
#[error("{} not found in {}; build all programs with `cargo build --workspace`, or install them into one folder", .missing.join(", "), .folder.display())]
pub(crate) struct MissingBinaries {
    missing: Vec<String>,
    folder: PathBuf,
}

impl Binaries {
    /// Looks for all four in a folder.
    ///
    /// # Errors
    /// Names every program that is missing.
    pub(crate) fn find(folder: &Path) -> Result<Self, MissingBinaries> {
        let binaries = Self { folder: folder.to_owned() };
        let missing: Vec<String> = ["registry", "predictor", "gateway", "collector"]
            .into_iter()
            .filter(|process| !binaries.program(process).is_file())
            .map(|process| format!("memharvest-{process}"))
            .collect();
        if missing.is_empty() {
            Ok(binaries)
        } else {
            Err(MissingBinaries { missing, folder: folder.to_owned() })
        }
    }

    /// The program of a process.
    pub(crate) fn program(&self, process: &str) -> PathBuf {
        self.folder.join(format!("memharvest-{process}{}", std::env::consts::EXE_SUFFIX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_program_is_named_with_the_cure() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("memharvest-registry"), "").unwrap();
        let said = Binaries::find(folder.path()).unwrap_err().to_string();
        assert!(said.contains("memharvest-gateway") && !said.contains("memharvest-registry"), "{said}");
        assert!(said.contains("cargo build --workspace"), "{said}");
    }
}
