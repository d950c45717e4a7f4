//! State as bytes and back, so that nothing that was learnt is lost when a predictor ends or a machine moves to another.
//!
//! A snapshot is one message of the contract, whether it rests in a file or travels to the registry: who, when, which
//! model, the state and its SHA-256. The state begins with a mark and the version of its form; what follows is the
//! program's own structures in the postcard format, in which every number keeps all its bits. Whatever does not fit is
//! refused whole: nothing is ever harvested on a state of which a part had to be guessed.

use memharvest_proto::registry::v1::ModelSnapshot;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

pub mod folder;

/// What every state begins with.
const MARK: [u8; 4] = *b"MHVS";

/// Form of the state. It grows with every change of a structure that is kept: a state of another form may be read without an
/// error, as something else.
pub const VERSION: u16 = 3;

/// Why a snapshot is refused.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Nothing is in it.
    #[error("it is empty")]
    Empty,
    /// Something is missing at its end.
    #[error("it is cut off")]
    CutOff,
    /// It is not what was written.
    #[error("its checksum does not fit, so it is damaged")]
    Checksum,
    /// Another program wrote it.
    #[error("it is no state of a predictor")]
    Foreign,
    /// Another version wrote it.
    #[error("it has form {0}, and this program reads form {VERSION}")]
    Version(u16),
    /// It is about somebody else.
    #[error("it is about {0}")]
    Other(String),
    /// It is the state of another model.
    #[error("it is the state of model {found}, and this predictor runs {wanted}")]
    Model {
        /// What it is of.
        found: String,
        /// What would be taken.
        wanted: String,
    },
    /// It is fresh enough for nothing.
    #[error("it was not taken within the last day")]
    TooOld,
    /// Its parts do not fit together.
    #[error("its state cannot be read: {0}")]
    State(#[from] postcard::Error),
    /// The file.
    #[error("it cannot be read or written: {0}")]
    File(#[from] std::io::Error),
}

/// The bytes of a state.
///
/// # Errors
/// A state that cannot be written, which would be a mistake in its structure.
pub fn encode<T: Serialize>(state: &T) -> Result<Vec<u8>, SnapshotError> {
    let mut bytes = Vec::with_capacity(4096);
    bytes.extend(MARK);
    bytes.extend(VERSION.to_le_bytes());
    Ok(postcard::to_extend(state, bytes)?)
}

/// A state from its bytes.
///
/// # Errors
/// Bytes that are empty, foreign, of another version, or not exactly one state.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SnapshotError> {
    if bytes.is_empty() {
        return Err(SnapshotError::Empty);
    }
    let rest = bytes.strip_prefix(&MARK).ok_or(SnapshotError::Foreign)?;
    let (version, rest) = rest.split_first_chunk().ok_or(SnapshotError::CutOff)?;
    let version = u16::from_le_bytes(*version);
    if version != VERSION {
        return Err(SnapshotError::Version(version));
    }
    match postcard::take_from_bytes(rest)? {
        (state, []) => Ok(state),
        _ => Err(SnapshotError::Foreign),
    }
}

/// Adds its checksum to a snapshot.
#[must_use]
pub fn seal(mut snapshot: ModelSnapshot) -> ModelSnapshot {
    snapshot.checksum = Sha256::digest(&snapshot.state).to_vec();
    snapshot
}

/// The state of a snapshot, if it is whole and of model `wanted`.
///
/// # Errors
/// See [`SnapshotError`].
pub fn unseal<T: DeserializeOwned>(snapshot: &ModelSnapshot, wanted: &str) -> Result<T, SnapshotError> {
    if snapshot.state.is_empty() {
        return Err(SnapshotError::Empty);
    }
    if Sha256::digest(&snapshot.state)[..] != snapshot.checksum {
        return Err(SnapshotError::Checksum);
    }
    if snapshot.model_version != wanted {
        let found = snapshot.model_version.clone();
        return Err(SnapshotError::Model { found, wanted: wanted.to_owned() });
    }
    decode(&snapshot.state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> ModelSnapshot {
        let state = encode(&(1.5f64, "kept".to_owned())).unwrap();
        seal(ModelSnapshot { model_version: "m-1".into(), state, ..ModelSnapshot::default() })
    }

    fn refused(spoil: impl FnOnce(&mut ModelSnapshot)) -> String {
        let mut snapshot = sealed();
        spoil(&mut snapshot);
        unseal::<(f64, String)>(&snapshot, "m-1").unwrap_err().to_string()
    }

    #[test]
    fn a_state_comes_back_as_it_was() {
        assert_eq!(unseal::<(f64, String)>(&sealed(), "m-1").unwrap(), (1.5, "kept".to_owned()));
    }

    #[test]
    fn whatever_does_not_fit_is_refused() {
        let resealed = |snapshot: &mut ModelSnapshot, state: Vec<u8>| {
            *snapshot = seal(ModelSnapshot { state, ..snapshot.clone() });
        };
        assert_eq!(refused(|snapshot| snapshot.state.clear()), "it is empty");
        assert!(refused(|snapshot| snapshot.state[9] ^= 1).contains("checksum"));
        assert!(refused(|snapshot| snapshot.state.truncate(9)).contains("checksum"));
        assert!(refused(|snapshot| snapshot.checksum.clear()).contains("checksum"));
        assert!(refused(|snapshot| snapshot.model_version = "m-2".into()).contains("model m-2"));
        assert!(refused(|snapshot| resealed(snapshot, b"GIF89a...".to_vec())).contains("no state"));
        assert!(refused(|snapshot| resealed(snapshot, b"MHVS\x04\x00".to_vec())).contains("form 4"));
        assert!(refused(|snapshot| resealed(snapshot, b"MHVS".to_vec())).contains("cut off"));
        let cut = |snapshot: &mut ModelSnapshot| {
            let state = snapshot.state[..snapshot.state.len() - 1].to_vec();
            resealed(snapshot, state);
        };
        assert!(refused(cut).contains("cannot be read"));
        let longer = |snapshot: &mut ModelSnapshot| {
            let state = [&snapshot.state[..], &[0]].concat();
            resealed(snapshot, state);
        };
        assert!(refused(longer).contains("no state"));
    }
}
