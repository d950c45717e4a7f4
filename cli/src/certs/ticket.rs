//! Tickets: whoever holds one gets the certificate that it stands for, once and for a short time.
//!
//! The authority keeps a file for each, named by the hash of its secret. Using it takes the file away.

use std::path::Path;
use std::time::{Duration, SystemTime};

use memharvest_services::tls::identity::Identity;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::authority::{Authority, Wanted};
use super::{CertsError, files};

/// What the host is given.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ticket {
    /// Where certificates are given out.
    pub(super) url: String,
    /// Whom it is for; for people.
    pub(super) identity: String,
    /// What opens.
    pub(super) secret: String,
    /// Whom the host may believe.
    pub(super) authorities: String,
}

/// What the authority keeps.
#[derive(Debug, Serialize, Deserialize)]
struct Counterfoil {
    identity: String,
    names: Vec<String>,
    valid_seconds: u64,
    /// Seconds since 1970.
    usable_until: u64,
}

pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn file_name(secret: &str) -> String {
    format!("{:x}.json", Sha256::digest(secret.as_bytes()))
}

pub(super) fn json(value: &impl Serialize) -> Result<String, CertsError> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|error| CertsError::Usage(error.to_string()))
}

/// Makes a ticket, and keeps its counterfoil.
pub(super) fn give(
    authority: &Authority,
    folder: &Path,
    url: &str,
    wanted: &Wanted,
    now: SystemTime,
    ttl: Duration,
) -> Result<String, CertsError> {
    super::join::check_url(url)?;
    // Names are tried now: the host could do nothing about one that cannot be used.
    authority.certify(wanted, &rcgen::KeyPair::generate()?, now)?;
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let counterfoil = Counterfoil {
        identity: wanted.identity.to_string(),
        names: wanted.names.clone(),
        valid_seconds: wanted.valid.as_secs(),
        usable_until: seconds(now + ttl),
    };
    let tickets = folder.join("tickets");
    files::make_folder(&tickets)?;
    files::write(&tickets.join(file_name(&secret)), &json(&counterfoil)?, files::SECRET)?;
    json(&Ticket {
        url: url.trim_end_matches('/').to_owned(),
        identity: counterfoil.identity,
        secret,
        authorities: authority.believed()?,
    })
}

/// Takes a ticket in: what it stands for. Nobody can use it again.
pub(super) fn take(folder: &Path, secret: &str, now: SystemTime) -> Result<Wanted, String> {
    const UNKNOWN: &str = "the ticket is not known here, or was used already";
    let file = folder.join("tickets").join(file_name(secret));
    let text = std::fs::read_to_string(&file).map_err(|_| UNKNOWN)?;
    // Of two who come at the same time, one alone takes it away.
    std::fs::remove_file(&file).map_err(|_| UNKNOWN)?;
    let found: Counterfoil = serde_json::from_str(&text).map_err(|_| UNKNOWN)?;
    if seconds(now) > found.usable_until {
        return Err("the ticket has expired; ask for another".into());
    }
    let identity: Identity = found.identity.parse()?;
    Ok(Wanted { identity, names: found.names, valid: Duration::from_secs(found.valid_seconds) })
}

#[cfg(test)]
mod tests {
    use memharvest_services::tls::identity::Role;

    use super::*;

    #[test]
    fn a_ticket_is_used_once_and_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let hour = Duration::from_hours(1);
        Authority::create(folder.path(), "test", now, hour).unwrap();
        let authority = Authority::load(folder.path()).unwrap();
        let identity = Identity::new(Role::Collector, "h1").unwrap();
        let wanted = Wanted { identity, names: vec!["h1.example".into()], valid: hour };
        let give = || {
            let text = give(&authority, folder.path(), "https://ca:7409/", &wanted, now, hour).unwrap();
            serde_json::from_str::<Ticket>(&text).unwrap()
        };
        let ticket = give();
        assert_eq!(ticket.url, "https://ca:7409");
        let taken = take(folder.path(), &ticket.secret, now).unwrap();
        assert_eq!(
            (taken.identity, taken.names, taken.valid),
            (wanted.identity.clone(), wanted.names.clone(), hour)
        );
        assert!(take(folder.path(), &ticket.secret, now).unwrap_err().contains("used already"));
        let late = give();
        assert!(take(folder.path(), &late.secret, now + 2 * hour).unwrap_err().contains("expired"));
        assert!(take(folder.path(), "../../ca", now).is_err());
        let nowhere = super::give(&authority, folder.path(), "http://ca:7409", &wanted, now, hour);
        assert!(nowhere.unwrap_err().to_string().contains("https://"));
    }
}
