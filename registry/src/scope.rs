//! Where a boundary is set: `fleet`, `group:<label>=<value>`, `host:<id>` or `vm:<uuid>`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::identifier;

/// A scope, from the widest to the most specific kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everything.
    Fleet,
    /// All hosts with a label.
    Group {
        /// Name of the label.
        label: String,
        /// Its value.
        value: String,
    },
    /// One host.
    Host(String),
    /// One machine.
    Vm(Uuid),
}

/// Why a text is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// It begins with no kind of scope.
    #[error("{0:?} is no scope: give fleet, group:<label>=<value>, host:<id> or vm:<uuid>")]
    Unknown(String),
    /// A group without a label, or with one that no label can have.
    #[error(
        "{0:?} names no group: give group:<label>=<value> with a label of 1 to 63 characters of A-Z a-z 0-9 . _ - / and a value of 1 to 253"
    )]
    Group(String),
    /// An id that no host can have.
    #[error("{0:?} names no host: give host:<id> with 1 to 128 characters of A-Z a-z 0-9 . _ -")]
    Host(String),
    /// Not a UUID.
    #[error("{0:?} names no machine: give vm:<uuid>")]
    Vm(String),
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if text == "fleet" {
            return Ok(Self::Fleet);
        }
        if let Some(group) = text.strip_prefix("group:") {
            let (label, value) = group.split_once('=').ok_or_else(|| ScopeError::Group(short(text)))?;
            if !identifier::is_label_name(label) || value.is_empty() || !identifier::is_label_value(value) {
                return Err(ScopeError::Group(short(text)));
            }
            return Ok(Self::Group { label: label.to_owned(), value: value.to_owned() });
        }
        if let Some(host) = text.strip_prefix("host:") {
            return if identifier::is_id(host) {
                Ok(Self::Host(host.to_owned()))
            } else {
                Err(ScopeError::Host(short(text)))
            };
        }
        if let Some(vm) = text.strip_prefix("vm:") {
            return Uuid::try_parse(vm).map(Self::Vm).map_err(|_| ScopeError::Vm(short(text)));
        }
        Err(ScopeError::Unknown(short(text)))
    }
}

/// Enough of a text to recognise it in a message.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet => f.write_str("fleet"),
            Self::Group { label, value } => write!(f, "group:{label}={value}"),
            Self::Host(id) => write!(f, "host:{id}"),
            Self::Vm(id) => write!(f, "vm:{id}"),
        }
    }
}

/// The scopes that speak for a machine or host, most specific first. Of several groups of one host, the one whose label comes
/// first in the order of the alphabet wins.
#[must_use]
pub fn layers(vm: Option<Uuid>, host: Option<&str>, labels: &BTreeMap<String, String>) -> Vec<Scope> {
    let mut layers = Vec::new();
    layers.extend(vm.map(Scope::Vm));
    layers.extend(host.map(|host| Scope::Host(host.to_owned())));
    layers.extend(
        labels.iter().map(|(label, value)| Scope::Group { label: label.clone(), value: value.clone() }),
    );
    layers.push(Scope::Fleet);
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_scope_is_read_and_written_alike() {
        for text in [
            "fleet",
            "group:rack=a1",
            "group:topology.example/zone=z=1",
            "host:h-1.example",
            "vm:0191f6a0-0000-7000-8000-000000000001",
        ] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_uuid_has_one_spelling() {
        let scope: Scope = "vm:0191F6A0000070008000000000000001".parse().unwrap();
        assert_eq!(scope.to_string(), "vm:0191f6a0-0000-7000-8000-000000000001");
    }

    #[test]
    fn what_is_no_scope_is_told_apart() {
        assert!(matches!("".parse::<Scope>(), Err(ScopeError::Unknown(_))));
        assert!(matches!("fleet:".parse::<Scope>(), Err(ScopeError::Unknown(_))));
        assert!(matches!("group:rack".parse::<Scope>(), Err(ScopeError::Group(_))));
        assert!(matches!("group:=a".parse::<Scope>(), Err(ScopeError::Group(_))));
        assert!(matches!("group:rack=".parse::<Scope>(), Err(ScopeError::Group(_))));
        assert!(matches!("host:".parse::<Scope>(), Err(ScopeError::Host(_))));
        assert!(matches!("host:a b".parse::<Scope>(), Err(ScopeError::Host(_))));
        assert!(matches!("vm:web-1".parse::<Scope>(), Err(ScopeError::Vm(_))));
    }

    #[test]
    fn the_most_specific_layer_comes_first_and_groups_follow_their_labels() {
        let labels =
            BTreeMap::from([("zone".to_owned(), "z".to_owned()), ("rack".to_owned(), "r".to_owned())]);
        let vm = Uuid::from_u128(7);
        let names: Vec<String> =
            layers(Some(vm), Some("h"), &labels).iter().map(ToString::to_string).collect();
        assert_eq!(names, [&format!("vm:{vm}"), "host:h", "group:rack=r", "group:zone=z", "fleet"]);
    }
}
