//! What is made of the files, made again when they change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Material, TlsError};
use crate::shutdown::Stop;

/// How often the files are looked at.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(2);

/// The three files, or something of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files<T> {
    pub(super) chain: T,
    pub(super) key: T,
    /// The authorities of the mesh; `None`: a port that asks nobody for a certificate.
    pub(super) authorities: Option<T>,
}

/// What the files held.
pub(super) type Contents = Files<Vec<u8>>;

impl Files<PathBuf> {
    fn read(&self) -> Result<Contents, TlsError> {
        let read = |file: &PathBuf| {
            std::fs::read(file).map_err(|source| TlsError::Unreadable { file: file.clone(), source })
        };
        Ok(Contents {
            chain: read(&self.chain)?,
            key: read(&self.key)?,
            authorities: self.authorities.as_ref().map(read).transpose()?,
        })
    }
}

/// What was made last, and of what.
pub(super) type Made = (Contents, Arc<Material>);

/// What is made of the files, and who waits for news of it.
#[derive(Debug)]
pub(super) struct Reloaded {
    files: Files<PathBuf>,
    current: watch::Sender<Made>,
}

impl Reloaded {
    pub(super) fn load(files: Files<PathBuf>) -> Result<Self, TlsError> {
        let contents = files.read()?;
        let made = Material::of(&files, &contents)?;
        Ok(Self { files, current: watch::Sender::new((contents, Arc::new(made))) })
    }

    /// What holds now.
    pub(super) fn current(&self) -> Arc<Material> {
        Arc::clone(&self.current.borrow().1)
    }

    /// Hears of what is made from now on.
    pub(super) fn follow(&self) -> watch::Receiver<Made> {
        self.current.subscribe()
    }

    /// Looks at the files until the process stops; `told` hears what holds, at first and whenever it is new. Files that
    /// cannot be used are told of once, and the last good ones stay.
    pub(super) async fn keep_fresh(&self, told: impl Fn(&Material), stop: Stop) {
        told(&self.current());
        let mut passed_over: Option<Contents> = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOKED_AT_EVERY) => {}
                () = stop.requested() => return,
            }
            match self.renew(passed_over.as_ref()) {
                Ok(true) => {
                    told(&self.current());
                    tracing::info!("the certificate of {} was renewed", self.files.chain.display());
                }
                Ok(false) => {}
                Err(refused) => {
                    let (contents, error) = *refused;
                    tracing::warn!(%error, "the new certificate is passed over: {error}");
                    passed_over = Some(contents);
                }
            }
        }
    }

    /// Takes over what the files hold now, if it is new and was not passed over already.
    fn renew(&self, passed_over: Option<&Contents>) -> Result<bool, Box<(Contents, TlsError)>> {
        // While one of them is being replaced, it may be missing for a moment.
        let Ok(contents) = self.files.read() else { return Ok(false) };
        if passed_over == Some(&contents) || self.current.borrow().0 == contents {
            return Ok(false);
        }
        match Material::of(&self.files, &contents) {
            Ok(made) => {
                self.current.send_replace((contents, Arc::new(made)));
                Ok(true)
            }
            Err(error) => Err(Box::new((contents, error))),
        }
    }
}
