//! Who a certificate of the mesh speaks for: `memharvest://ROLE/NAME` among its subject alternative names.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// How the URI of an identity begins.
pub const SCHEME: &str = "memharvest://";
/// The name that stands for every host.
pub const ANY: &str = "*";
/// Longest name, in bytes.
const LONGEST: usize = 128;

/// What a member of the mesh is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Measures a host.
    Collector,
    /// Forecasts.
    Predictor,
    /// Serves people.
    Gateway,
    /// Keeps what must last.
    Registry,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Collector, Self::Predictor, Self::Gateway, Self::Registry];

    /// Its word in a URI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Collector => "collector",
            Self::Predictor => "predictor",
            Self::Gateway => "gateway",
            Self::Registry => "registry",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is no role; use collector, predictor, gateway or registry"))
    }
}

/// A member of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    role: Role,
    name: String,
}

/// A certificate that does not say who it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoIdentity {
    /// It is no certificate.
    #[error("it cannot be read as a certificate")]
    Unreadable,
    /// There is no such name in it.
    #[error("it has no memharvest://ROLE/NAME among its names")]
    None,
    /// There are several.
    #[error("it has more than one memharvest:// name; give every process a certificate of its own")]
    Several,
    /// The name is not written as it must be.
    #[error("{0}")]
    Malformed(String),
}

impl Identity {
    /// A member by its role and name.
    ///
    /// # Errors
    /// The name is empty, too long, or has other characters than `A-Z a-z 0-9 . _ -`. `*` is for collectors alone.
    pub fn new(role: Role, name: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let fits = (1..=LONGEST).contains(&name.len()) && name.chars().all(allowed);
        if fits || (role == Role::Collector && name == ANY) {
            return Ok(Self { role, name: name.to_owned() });
        }
        Err(format!("`{name}` is no name of a {role}; write 1 to {LONGEST} characters of A-Z a-z 0-9 . _ -"))
    }

    /// What it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The host of a collector, `*` for all; the name of anything else.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it may act as the agent of this id: a collector as its host alone, anything else as itself or as one of
    /// its replicas, whose ids are its name, a dash and more.
    #[must_use]
    pub fn is_agent(&self, agent_id: &str) -> bool {
        match self.role {
            Role::Collector => self.name == ANY || self.name == agent_id,
            _ => agent_id
                .strip_prefix(self.name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-')),
        }
    }

    /// Who shows this certificate.
    ///
    /// # Errors
    /// It does not say so, or not clearly.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, NoIdentity> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NoIdentity::Unreadable)?;
        let names = parsed.subject_alternative_name().map_err(|_| NoIdentity::Unreadable)?;
        let names = names.iter().flat_map(|extension| &extension.value.general_names);
        let mut ours = names.filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
            _ => None,
        });
        match (ours.next(), ours.next()) {
            (Some(uri), None) => uri.parse().map_err(NoIdentity::Malformed),
            (None, _) => Err(NoIdentity::None),
            (Some(_), Some(_)) => Err(NoIdentity::Several),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}/{}", self.role, self.name)
    }
}

impl FromStr for Identity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/'));
        let (role, name) = parts.ok_or_else(|| format!("`{text}` is not written {SCHEME}ROLE/NAME"))?;
        Self::new(role.parse()?, name)
    }
}

/// From when to when a certificate holds, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Its first second.
    pub starts: i64,
    /// Its last one.
    pub expires: i64,
}

impl Lifetime {
    /// A certificate's; `None`: it cannot be read.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let validity = parsed.validity();
        Some(Self { starts: validity.not_before.timestamp(), expires: validity.not_after.timestamp() })
    }

    /// How long it still holds: to the end of its last second.
    #[must_use]
    pub fn left(&self, now: SystemTime) -> Duration {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(u64::try_from(self.expires + 1).unwrap_or(0)).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_written_as_they_are_read() {
        for text in [
            "memharvest://collector/0123456789abcdef0123456789abcdef",
            "memharvest://collector/*",
            "memharvest://predictor/predictor-0.mesh_1",
            "memharvest://gateway/g",
            "memharvest://registry/r",
        ] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "collector/h1",
            "memharvest://collector",
            "memharvest://collector/",
            "memharvest://collector/a/b",
            "memharvest://collector/a b",
            "memharvest://predictor/*",
            "memharvest://king/a",
            "memharvest:///a",
            "Memharvest://collector/a",
        ] {
            assert!(wrong.parse::<Identity>().is_err(), "{wrong}");
        }
        assert!(Identity::new(Role::Gateway, &"g".repeat(LONGEST + 1)).is_err());
    }

    #[test]
    fn a_collector_is_its_own_host_and_others_are_themselves_and_their_replicas() {
        let is = |identity: &str, agent| identity.parse::<Identity>().unwrap().is_agent(agent);
        assert!(is("memharvest://collector/h1", "h1"));
        for other in ["h2", "h1-2", "h", ""] {
            assert!(!is("memharvest://collector/h1", other), "{other}");
        }
        assert!(is("memharvest://collector/*", "h7"));
        for own in ["p", "p-0", "p-7-x"] {
            assert!(is("memharvest://predictor/p", own), "{own}");
        }
        for other in ["px", "q", "q-p", ""] {
            assert!(!is("memharvest://predictor/p", other), "{other}");
        }
    }

    fn certified(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 2);
        for uri in uris {
            params.subject_alt_names.push(rcgen::SanType::URI((*uri).try_into().unwrap()));
        }
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_says_clearly_who_it_is() {
        let told = |uris: &[&str]| Identity::of(&certified(uris));
        let found = told(&["https://elsewhere.example/x", "memharvest://collector/h1"]).unwrap();
        assert_eq!((found.role(), found.name()), (Role::Collector, "h1"));
        assert_eq!(told(&["https://elsewhere.example/x"]), Err(NoIdentity::None));
        let two = ["memharvest://collector/h1", "memharvest://gateway/g"];
        assert_eq!(told(&two), Err(NoIdentity::Several));
        assert!(matches!(told(&["memharvest://collector/"]), Err(NoIdentity::Malformed(_))));
        assert_eq!(Identity::of(&CertificateDer::from(vec![1, 2, 3])), Err(NoIdentity::Unreadable));
    }

    #[test]
    fn a_lifetime_is_told_and_counted_down() {
        let lifetime = Lifetime::of(&certified(&[])).unwrap();
        assert_eq!(lifetime.expires - lifetime.starts, 86_400);
        let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap());
        assert_eq!(lifetime.left(at(lifetime.starts)), Duration::from_secs(86_401));
        assert_eq!(lifetime.left(at(lifetime.expires)), Duration::from_secs(1));
        assert_eq!(lifetime.left(at(lifetime.expires + 5)), Duration::ZERO);
        assert_eq!(Lifetime::of(&CertificateDer::from(vec![1])), None);
    }
}
