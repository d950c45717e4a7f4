//! A read-only connection to libvirt and the few calls made on it. Every one of them blocks.

use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

use super::bulk_stats::{self, Known};
use super::domain_xml;
use super::record::DomainRecord;
use crate::reading::Definition;

/// Why libvirt could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It may work later: the daemon is not there, or went away.
    #[error("{0}")]
    Unreachable(String),
    /// It can never work: no driver serves such a URI, or its file is broken.
    #[error("{0}")]
    Unusable(String),
}

/// A connection that is opened when it is needed and dropped when it fails.
#[derive(Debug)]
pub(super) struct Link {
    uri: String,
    connection: Option<Connect>,
    /// The driver's bulk call knows no memory; seen once and kept until the connection is lost.
    one_by_one: bool,
    known: Known,
}

impl Link {
    pub(super) fn new(uri: String) -> Self {
        Self { uri, connection: None, one_by_one: false, known: Known::new() }
    }

    /// All active domains. A connection that was lost is opened anew, once.
    pub(super) fn domains(&mut self) -> Result<Vec<DomainRecord>, LinkError> {
        let first = self.try_domains();
        match first {
            // A connection that was good until now may simply have outlived its daemon.
            Err(_) if self.drop_connection() => self.try_domains(),
            other => other,
        }
    }

    /// What the definitions of these domains say; a domain that is gone or unreadable is left out.
    pub(super) fn definitions(&mut self, uuids: &[Uuid]) -> Vec<(Uuid, Definition)> {
        let Some(connection) = &self.connection else { return Vec::new() };
        let read = |&uuid| {
            let xml = connection.lookup_domain_by_uuid(uuid).and_then(|domain| domain.xml_desc(0)).ok()?;
            let definition = domain_xml::parse(&xml)
                .inspect_err(
                    |error| tracing::warn!(vm = %uuid, %error, "cannot read the XML of domain {uuid}"),
                )
                .ok()?;
            Some((uuid, definition))
        };
        uuids.iter().filter_map(read).collect()
    }

    fn try_domains(&mut self) -> Result<Vec<DomainRecord>, LinkError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open(&self.uri)?,
        };
        let connection = self.connection.insert(connection);
        let mut records =
            bulk_stats::read(connection, &mut self.known).map_err(|error| unreachable(&error))?;
        // The QEMU driver always tells the balloon's size; a driver that never does must be asked one by one.
        self.one_by_one |= !records.is_empty() && records.iter().all(|record| record.allocated.is_none());
        if self.one_by_one {
            for record in &mut records {
                // A domain may end between the two calls: its figures stay absent.
                let _ = connection
                    .lookup_domain_by_uuid(record.uuid)
                    .and_then(|domain| complete(&domain, record));
            }
        }
        Ok(records)
    }

    /// Whether there was a connection to drop.
    fn drop_connection(&mut self) -> bool {
        self.one_by_one = false;
        // A daemon that is started anew may give the same numbers to others.
        self.known.clear();
        self.connection.take().is_some()
    }
}

/// Asks one domain for what the bulk call left out.
fn complete(domain: &Domain, record: &mut DomainRecord) -> Result<(), Error> {
    record.maximum = domain.max_memory()?.checked_mul(1024);
    for stat in domain.memory_stats(0)? {
        record.set_single(stat.tag, stat.val);
    }
    Ok(())
}

fn open(uri: &str) -> Result<Connect, LinkError> {
    Connect::open_read_only(Some(uri)).map_err(|error| {
        let scheme = uri.split(':').next().unwrap_or_default();
        match error.code().to_raw() {
            // Served inside this very process: what is wrong now is wrong for good.
            _ if scheme == "test" => LinkError::Unusable(one_line(&error)),
            // A daemon whose QEMU driver did not come up says that there is none; a restart mends it.
            _ if scheme.starts_with("qemu") => unreachable(&error),
            sys::VIR_ERR_NO_CONNECT | sys::VIR_ERR_CONFIG_UNSUPPORTED | sys::VIR_ERR_INVALID_ARG => {
                LinkError::Unusable(one_line(&error))
            }
            _ => unreachable(&error),
        }
    })
}

fn unreachable(error: &Error) -> LinkError {
    LinkError::Unreachable(one_line(error))
}

fn one_line(error: &Error) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}
